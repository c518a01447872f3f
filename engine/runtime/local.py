"""Runs a plan on this machine: one process per node, several at a time, killable at any instant.

All truth is in the store and in the event log. A signal ends the processes and leaves what is
published; the next run goes on from there.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from engine.artifacts import Artifact
from engine.plan import graph
from engine.plan.stage import Machine, Node, Plan
from engine.runtime import child, events, locks, scheduler
from engine.runtime.child import Child, End
from engine.runtime.events import Event
from engine.runtime.machine import Settings
from engine.runtime.runs import Run
from engine.runtime.scheduler import Capacity, Placement
from engine.runtime.store import Parents, Store, write_whole
from engine.runtime.worker import Job

POLL_S = 0.1
GRACE_S = 5.0
Emit = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A node that failed, with the end of its log."""

    node: Node
    message: str
    hint: str | None
    log_path: Path
    log_tail: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `signal` is 0 unless one ended it."""

    failures: tuple[Failure, ...] = ()
    signal: int = 0


@dataclass(slots=True)
class Executor:
    """Executes one plan. Nothing is started until `execute`."""

    plan: Plan
    store: Store
    run: Run
    settings: Settings
    folder: Path  # relative paths of the recipe start here
    command: Sequence[str]  # arguments of the interpreter that make it a worker
    emit: Emit
    _artifacts: dict[str, Artifact] = field(default_factory=dict)
    _children: dict[str, Child] = field(default_factory=dict)
    _failures: list[Failure] = field(default_factory=list)
    _over: set[str] = field(default_factory=set)  # ran, failed, skipped or cached
    _tried_links: set[str] = field(default_factory=set)
    _is_changed: bool = True  # something ended, so something may start
    _signals: list[int] = field(default_factory=list)

    def execute(self) -> Outcome:
        """Run every node that is not in the store; return when all is done or a signal came."""
        self._begin()
        self._take_cached()
        urgencies = scheduler.urgency(self.plan)
        with _signals_into(self._signals), selectors.DefaultSelector() as selector:
            while not self._signals and len(self._over) < len(self.plan.nodes):
                self._start_ready(urgencies, selector)
                self._listen(selector)
            if self._signals:
                self._stop(selector)
                return Outcome(tuple(self._failures), self._signals[0])
        failed = tuple(failure.node.id for failure in self._failures)
        self.emit(events.RunFinished(time=time.time(), failed=failed))
        return Outcome(tuple(self._failures))

    def _begin(self) -> None:
        self.emit(
            events.RunStarted(
                time=time.time(),
                run=self.run.id,
                recipe=self.plan.recipe,
                nodes=tuple(node.id for node in self.plan.nodes),
                holder=locks.identity(),
            )
        )

    def _take_cached(self) -> None:
        for node in self.plan.nodes:
            artifact = self.store.get(node.key)
            if artifact is not None:
                self._done(node, artifact)
                self.emit(events.NodeCached(time=time.time(), node=node.id, reason="in the store"))

    def _start_ready(self, urgencies: dict[str, int], selector: selectors.BaseSelector) -> None:
        """Link or start nodes until no more fit."""
        capacity = Capacity(self.settings.threads, self.settings.num_gpus)
        while self._is_changed and not self._signals:
            ready = scheduler.ready_nodes(
                self.plan, self._artifacts.keys(), self._over | self._children.keys(), urgencies
            )
            linked = [node for node in ready if self._link(node)]
            if linked:
                continue
            running = {
                node_id: started.placement
                for node_id, started in self._children.items()
                if not started.is_waiting
            }
            chosen = scheduler.next_to_start(ready, running, capacity)
            if chosen is None:
                self._is_changed = False
                return
            self._start(*chosen, selector)

    def _link(self, node: Node) -> bool:
        if node.id in self._tried_links:
            return False
        self._tried_links.add(node.id)
        artifact = self.store.link(node, self._parents(node))
        if artifact is None:
            return False
        self._done(node, artifact)
        self.emit(events.NodeLinked(time=time.time(), node=node.id))
        return True

    def _start(self, node: Node, placement: Placement, selector: selectors.BaseSelector) -> None:
        job = self._job(node, placement)
        path = self.run.path / "jobs" / f"{node.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(job.to_json(), indent=1) + "\n")
        python = child.interpreter(node, self.settings, sys.executable)
        variables = child.environment(os.environ, placement, self.settings)
        if python != sys.executable:
            variables = child.with_engine(variables, self.run.path / "import")
        command = [python, *self.command, str(path)]
        started = child.start(node, placement, command, self.run.log_path(node.id), variables)
        self._children[node.id] = started
        selector.register(started.pipe, selectors.EVENT_READ, started)
        self.emit(events.NodeStarted(time=time.time(), node=node.id, pid=started.process.pid))

    def _job(self, node: Node, placement: Placement) -> Job:
        on_gpu = placement.gpu is not None
        return Job(
            node=node,
            store=self.store.root.resolve(),
            inputs={
                port: {label: artifact.manifest.key for label, artifact in labels.items()}
                for port, labels in self._parents(node).items()
            },
            machine=Machine(
                num_threads=placement.threads,
                num_workers=placement.threads,
                device="cuda" if on_gpu else "cpu",
                is_offline=self.settings.is_offline,
            ),
            folder=self.folder.resolve(),
        )

    def _parents(self, node: Node) -> Parents:
        return {
            port: {label: self._artifacts[node_id] for label, node_id in labels.items()}
            for port, labels in node.inputs.items()
        }

    def _listen(self, selector: selectors.BaseSelector) -> None:
        """Take in messages and ends of processes, waiting a moment for them."""
        if not self._children:
            return
        selector.select(POLL_S)
        for started in list(self._children.values()):
            end = started.end()  # before the messages, so that none of an ended process is missed
            for message in started.messages():
                self._take_message(started, message)
            if end is not None:
                selector.unregister(started.pipe)
                started.close()
                del self._children[started.node.id]
                self._is_changed = True
                self._take_end(started, end)

    def _take_message(self, started: Child, message: dict[str, Any]) -> None:
        if message["type"] == "waiting":
            self._is_changed = True  # its place is free for others
            self.emit(events.NodeWaiting(time=time.time(), node=started.node.id))
        if message["type"] != "progress":
            return
        self.emit(
            events.NodeProgress(
                time=time.time(),
                node=started.node.id,
                done=message["done"],
                total=message["total"],
                unit=message["unit"],
            )
        )

    def _take_end(self, started: Child, end: End) -> None:
        node, last = started.node, started.last or {}
        # What counts is the artifact: a process may die between publishing and saying so.
        artifact = self.store.get(node.key)
        if artifact is None:
            self._fail(started, end)
        elif last.get("type") == "cached":
            self._done(node, artifact)
            self.emit(events.NodeCached(time=time.time(), node=node.id, reason=last["reason"]))
        else:
            self._done(node, artifact)
            counts = artifact.manifest.counts
            self.emit(
                events.NodeFinished(time=time.time(), node=node.id, counts=counts, **_costs(end))
            )

    def _done(self, node: Node, artifact: Artifact) -> None:
        self._artifacts[node.id] = artifact
        self._over.add(node.id)

    def _fail(self, started: Child, end: End) -> None:
        node, last = started.node, started.last or {}
        message = last.get("message") or _describe(end)
        hint = last.get("hint")
        tail = tuple(started.log_tail())
        self._failures.append(Failure(node, message, hint, started.log_path, tail))
        self._over.add(node.id)
        self.emit(
            events.NodeFailed(
                time=time.time(), node=node.id, message=message, hint=hint, **_costs(end)
            )
        )
        for skipped in sorted(graph.descendants(self.plan, node.id) - self._over):
            self._over.add(skipped)
            reason = f"`{node.id}` failed"
            self.emit(events.NodeSkipped(time=time.time(), node=skipped, reason=reason))

    def _stop(self, selector: selectors.BaseSelector) -> None:
        """End all processes: politely, then, after a while or a second signal, at once."""
        for started in self._children.values():
            started.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while self._children:
            if time.monotonic() > deadline or len(self._signals) > 1:
                for started in self._children.values():
                    started.signal(signal.SIGKILL)
            time.sleep(0.02)
            for node_id, started in list(self._children.items()):
                if started.end() is not None:
                    selector.unregister(started.pipe)
                    started.close()
                    del self._children[node_id]
        self.emit(events.RunStopped(time=time.time(), signal=self._signals[0]))


def _costs(end: End) -> dict[str, float]:
    return {
        "wall_s": round(end.wall_s, 3),
        "cpu_s": round(end.cpu_s, 3),
        "peak_memory_gb": round(end.peak_memory_gb, 4),
    }


def _describe(end: End) -> str:
    if end.exit_code >= 0:
        return f"its process ended with exit code {end.exit_code} and no message"
    name = signal.Signals(-end.exit_code).name
    text = f"its process was ended by {name} at {end.peak_memory_gb:.1f} GB of memory"
    is_killed = -end.exit_code == signal.SIGKILL
    return text + ("; the machine may be out of memory" if is_killed else "")


@contextmanager
def _signals_into(received: list[int]) -> Iterator[None]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them."""

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
