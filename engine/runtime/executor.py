"""Runs a plan: one process per node or per part of it, several at a time, killable at any instant.

All truth is in the store and in the event log. A signal ends the processes and leaves what is
published; the next run goes on from there. Where the processes run is the launcher's business.
"""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact
from engine.diagnostics import STAGE_FAILED, StageError
from engine.plan.stage import Machine, Node, Plan
from engine.runtime import events, locks, retries, scheduler, signals
from engine.runtime.child import End, Launcher, Usage, Worker
from engine.runtime.events import Event
from engine.runtime.machine import Settings
from engine.runtime.runs import Run
from engine.runtime.scheduler import Demand, Frontier
from engine.runtime.store import Parents, Reads, Store
from engine.runtime.work import Work
from engine.runtime.worker import MEANWHILE, Job

POLL_S = 0.1
GRACE_S = 8.0  # a stop ends within ten seconds
USAGE_EVERY_S = 2.0
MAX_REPAIRS = 3  # of the inputs of one node
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
Emit = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A node that failed, with the end of its log."""

    node: Node
    message: str
    hint: str | None
    log_path: Path
    log_tail: tuple[str, ...]
    code: str = STAGE_FAILED
    about: tuple[str, ...] = ()  # the setting at fault, as `StageError` names it


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
    launcher: Launcher
    emit: Emit
    demands: Mapping[str, Demand] = field(default_factory=dict)  # by node, where it is known
    reads: Callable[[Node], Reads] = lambda node: {}  # what a node reads of its inputs, by port
    _frontier: Frontier = field(init=False)
    _nodes: dict[str, Node] = field(init=False)
    _by_key: dict[str, str] = field(init=False)  # key -> node id
    _artifacts: dict[str, Artifact] = field(default_factory=dict)
    _works: dict[str, Work] = field(default_factory=dict)  # by node: running or pausing
    _failures: list[Failure] = field(default_factory=list)
    _over: set[str] = field(default_factory=set)  # ran, failed, skipped or cached
    _tried_links: set[str] = field(default_factory=set)
    _num_repairs: dict[str, int] = field(default_factory=dict)
    _signals: list[int] = field(default_factory=list)
    _sampled_at: float = 0.0

    def __post_init__(self) -> None:
        """Rank the nodes."""
        self._frontier = Frontier(self.plan)
        self._nodes = {node.id: node for node in self.plan.nodes}
        self._by_key = {node.key: node.id for node in self.plan.nodes}

    def execute(self) -> Outcome:
        """Run every node that is not in the store; return when all is done or a signal came.

        Raises StageError, with every process ended, when the disk takes nothing more.
        """
        with signals.collected(self._signals):
            try:
                self._begin()
                self._take_cached()
                while not self._signals and len(self._over) < len(self.plan.nodes):
                    self._start_ready()
                    self._listen()
                if not self._signals:
                    failed = tuple(failure.node.id for failure in self._failures)
                    self.emit(events.RunFinished(time=time.time(), failed=failed))
            except (OSError, StageError) as error:  # the latter: a shared store is out of reach
                self._end_workers(GRACE_S)
                if not isinstance(error, OSError) or error.errno not in _DISK:
                    raise
                raise StageError(
                    f"the store cannot be written any more: {error.strerror}",
                    hint="make room or choose another `--store`; finished stages are kept",
                ) from error
            if self._signals:
                self._end_workers(GRACE_S)
                self.emit(events.RunStopped(time=time.time(), signal=self._signals[0]))
                return Outcome(tuple(self._failures), self._signals[0])
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
        there = self.store.get_all(node.key for node in self.plan.nodes)
        for node in self.plan.nodes:
            artifact = there.get(node.key)
            if artifact is not None:
                self.store.offer(artifact)
                self._done(node, artifact)
                self.emit(events.NodeCached(time=time.time(), node=node.id, reason="in the store"))

    def _start_ready(self) -> None:
        """Link or start nodes until no more fit."""
        while self._link_one():
            pass
        for work in self._works.values():
            while work.has_next(time.monotonic()) and self._start_next(work):
                pass
        while not self._signals:
            capacity = self.launcher.capacity()
            running = self._running()
            chosen = scheduler.next_to_start(
                self._frontier.ready(), running, capacity, self.demands
            )
            if chosen is None:
                return
            node, _ = chosen
            if self._is_done_elsewhere(node):
                continue
            num_ready = sum(1 for _ in self._frontier.ready())
            demand = self.demands.get(node.id, scheduler.NOTHING)
            num_parts = min(
                scheduler.num_parts(node, num_ready, running, capacity, demand),
                scheduler.num_parts_worth(self._most_rows(node)),
            )
            self._frontier.take(node.id)
            work = self._works[node.id] = Work(node, num_parts)
            while work.has_next(time.monotonic()) and self._start_next(work):
                pass

    def _most_rows(self, node: Node) -> float | None:
        """Return the largest number of rows that a node is given; None: it reads a source."""
        given = (a for labels in self._parents(node).values() for a in labels.values())
        return max((n for a in given for n in a.manifest.counts.values()), default=None)

    def _is_done_elsewhere(self, node: Node) -> bool:
        """Take the result of another run that was at work on the same node."""
        artifact = self.store.get(node.key)
        if artifact is None:
            return False
        self._done(node, artifact)
        self.emit(events.NodeCached(time=time.time(), node=node.id, reason=MEANWHILE))
        return True

    def _link_one(self) -> bool:
        """Link the first ready node whose work was done before on equal inputs."""
        for node in list(self._frontier.ready()):
            if node.id in self._tried_links:
                continue
            self._tried_links.add(node.id)
            artifact = self.store.link(node, self._parents(node), self.reads(node))
            if artifact is not None:
                self._done(node, artifact)
                self.emit(events.NodeLinked(time=time.time(), node=node.id))
                return True
        return False

    def _running(self) -> list[scheduler.Placement]:
        return [place for work in self._works.values() for place in work.placements()]

    def _start_next(self, work: Work) -> bool:
        """Start the next process of a node, if there is room for it."""
        node = work.node
        chosen = scheduler.next_to_start(
            (node,), self._running(), self.launcher.capacity(), self.demands
        )
        if chosen is None:
            return False
        placement, part = chosen[1], work.next
        job = Job(
            node=node,
            store=self.store.root.resolve(),
            remote=self.settings.remote,
            inputs={
                port: {label: artifact.manifest.key for label, artifact in labels.items()}
                for port, labels in self._parents(node).items()
            },
            machine=Machine(
                num_threads=placement.threads,
                device="cuda" if placement.gpus else "cpu",
                num_devices=max(1, len(placement.gpus)),
                is_offline=self.settings.is_offline,
                shrink=work.shrink,
                has_crashed=part in work.crashed,
            ),
            folder=self.folder.resolve(),
            part=part,
        )
        worker = self.launcher.start(job, placement, self.run.log_path(node.id))
        if worker is None:
            return False
        if work.add(part, worker, placement):
            self.emit(events.NodeStarted(time=time.time(), node=node.id, pid=worker.pid))
        return True

    def _parents(self, node: Node) -> Parents:
        return {
            port: {label: self._artifacts[node_id] for label, node_id in labels.items()}
            for port, labels in node.inputs.items()
        }

    def _listen(self) -> None:
        """Take in messages and ends of processes, waiting a moment for them."""
        if len(self._over) == len(self.plan.nodes):
            return
        self.launcher.wait(POLL_S)
        for work in list(self._works.values()):
            for worker in work.workers():
                if self._works.get(work.node.id) is not work:
                    break  # another part has ended the node, and all its processes with it
                end = worker.end()  # before the messages, so that none of them is missed
                for message in worker.messages():
                    self._take_message(work, worker, message)
                if end is not None:
                    worker.close()
                    self._take_end(work, worker, end)
        self._sample_usage()

    def _take_message(self, work: Work, worker: Worker, message: Mapping[str, Any]) -> None:
        if message["type"] == "waiting":
            self.emit(events.NodeWaiting(time=time.time(), node=work.node.id))
        if message["type"] != "progress":
            return
        done, total = work.progress(worker, message["done"], message["total"])
        self.emit(
            events.NodeProgress(
                time=time.time(), node=work.node.id, done=done, total=total, unit=message["unit"]
            )
        )

    def _sample_usage(self) -> None:
        now = time.monotonic()
        if now - self._sampled_at < USAGE_EVERY_S:
            return
        self._sampled_at = now
        for work in self._works.values():
            found = [usage for worker in work.workers() if (usage := worker.usage()) is not None]
            if found:
                usage = Usage.sum(found)
                self.emit(
                    events.NodeUsage(
                        time=time.time(),
                        node=work.node.id,
                        memory_gb=round(usage.memory_gb, 4),
                        cpu_percent=round(usage.cpu_percent, 1),
                        gpu_memory_gb=usage.gpu_memory_gb,
                    )
                )

    def _take_end(self, work: Work, worker: Worker, end: End) -> None:
        node, last = work.node, worker.last or {}
        part = work.remove(worker, end)
        # What counts is the artifact: a process may die between publishing and saying so.
        artifact = self.store.get(node.key)
        if artifact is not None:
            self._finish(work, artifact, last)
        elif last.get("type") == "part":
            work.end_part()
        elif last.get("type") == "damaged":
            self._repair(work, worker, end, last)
        else:
            message = last.get("message") or _describe(end)
            found = retries.retry(
                end.exit_code, worker.last, message, out_of_memory=end.out_of_memory
            )
            if found is None or not work.may_retry(part, found, self.settings.retries):
                self._fail(work, worker, message, last.get("hint"), last)
            else:
                pause_s = work.retry(part, self.settings.retry_pause_s, found)
                self.emit(
                    events.NodeRetried(
                        time=time.time(),
                        node=node.id,
                        attempt=work.attempt,
                        wait_s=pause_s,
                        reason=found.reason,
                    )
                )

    def _finish(self, work: Work, artifact: Artifact, last: Mapping[str, Any]) -> None:
        node = work.node
        self._drop(work)
        self._done(node, artifact)
        if last.get("type") == "cached":
            self.emit(events.NodeCached(time=time.time(), node=node.id, reason=last["reason"]))
            return
        counts = artifact.manifest.counts
        self.emit(
            events.NodeFinished(time=time.time(), node=node.id, counts=counts, **work.costs())
        )

    def _done(self, node: Node, artifact: Artifact) -> None:
        self._artifacts[node.id] = artifact
        self._over.add(node.id)
        self._frontier.finish(node.id)

    def _drop(self, work: Work) -> None:
        """Forget a node's processes; those that still run are ended."""
        for worker in work.workers():
            worker.signal(signal.SIGKILL)
            _wait_for_end(worker)
        del self._works[work.node.id]

    def _repair(self, work: Work, worker: Worker, end: End, last: Mapping[str, Any]) -> None:
        """Make damaged inputs anew, then run the node again."""
        node_id = work.node.id
        self._num_repairs[node_id] = self._num_repairs.get(node_id, 0) + 1
        producers = [self._by_key[key] for key in last["keys"] if key in self._by_key]
        if not producers or self._num_repairs[node_id] > MAX_REPAIRS:
            self._fail(work, worker, last["message"], "`adapt store verify` names what is damaged")
            return
        self._drop(work)
        self._frontier.offer(node_id)
        for producer in producers:
            if self._artifacts.pop(producer, None) is not None:
                self._over.discard(producer)
                self._tried_links.discard(producer)
                self._frontier.undo(producer)
        self.emit(
            events.NodeRetried(
                time=time.time(),
                node=node_id,
                attempt=self._num_repairs[node_id],
                wait_s=0.0,
                reason=f"{last['message']}; made anew: {', '.join(producers)}",
            )
        )

    def _fail(
        self,
        work: Work,
        worker: Worker,
        message: str,
        hint: str | None,
        last: Mapping[str, Any] | None = None,
    ) -> None:
        node, last = work.node, last or {}
        tail, log_path = tuple(worker.log_tail()), self.run.log_path(node.id)
        code, about = last.get("code", STAGE_FAILED), tuple(last.get("about", ()))
        self._failures.append(Failure(node, message, hint, log_path, tail, code, about))
        self._drop(work)
        self._over.add(node.id)
        self.emit(
            events.NodeFailed(
                time=time.time(), node=node.id, message=message, hint=hint, **work.costs()
            )
        )
        for skipped in self._frontier.descendants(node.id):
            if skipped not in self._over:
                self._over.add(skipped)
                reason = f"`{node.id}` failed"
                self.emit(events.NodeSkipped(time=time.time(), node=skipped, reason=reason))

    def _end_workers(self, grace_s: float) -> None:
        """End all processes: politely, then, after a while or a second signal, at once."""
        workers = [worker for work in self._works.values() for worker in work.workers()]
        for worker in workers:
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while workers:
            if time.monotonic() > deadline or len(self._signals) > 1:
                for worker in workers:
                    worker.signal(signal.SIGKILL)
            time.sleep(0.02)
            ended = [worker for worker in workers if worker.end() is not None]
            for worker in ended:
                worker.close()
            workers = [worker for worker in workers if worker not in ended]
        self._works.clear()


def _wait_for_end(worker: Worker) -> None:
    while worker.end() is None:
        time.sleep(0.005)
    worker.close()


def _describe(end: End) -> str:
    if end.exit_code >= 0:
        return f"its process ended with exit code {end.exit_code} and no message"
    name = signal.Signals(-end.exit_code).name
    text = f"its process was ended by {name} at {end.peak_memory_gb:.1f} GB of memory"
    return text + ("; the machine may be out of memory" if end.out_of_memory else "")
