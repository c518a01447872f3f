"""The process of one tracker: reads the event log of a run and hands numbers on. Not a verb.

It ends when the run has ended, at the latest ten minutes later, whatever its tracker does.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from engine.cli import overview
from engine.cli.overview import Overview
from engine.cli.trackers import About, Tracker
from engine.runtime import events, runs
from engine.runtime.eventlog import LogReader
from engine.runtime.events import Event
from engine.runtime.runs import Run
from engine.runtime.status import RunStatus
from engine.runtime.store import Store

POLL_S = 1.0
GRACE_S = 600.0
BEGIN_S = 60.0
USAGE_EVERY_S = 10.0
MANY_NODES = 200  # from here on the times of nodes are told by stage
_FACTS = ("engine", "plan_digest", "overrides", "only", "started_at")
_SETTINGS = ("executor", "device", "num_gpus", "threads")


class Point(NamedTuple):
    """Numbers at one step of a group."""

    group: str
    values: Mapping[str, float]
    step: int


@dataclass(slots=True)
class Reader:
    """Turns what happens in a run into numbers."""

    run: Overview
    store: Store
    _funnels: dict[str, dict[str, int]] = field(default_factory=dict)
    _num_usages: int = 0
    _usage_at: float = 0.0

    def points(self, event: Event) -> Iterator[Point]:
        """Take in an event; yield what is new."""
        before = self.run.total().num_good
        self.run.add(event)
        num_good = self.run.total().num_good
        if isinstance(event, events.NodeFinished):
            yield from self._finished(event, num_good)
        if isinstance(event, events.NodeUsage) and event.time - self._usage_at >= USAGE_EVERY_S:
            self._usage_at = event.time
            yield self._usage()
        if num_good != before:
            yield Point("progress", {"nodes": num_good}, num_good)
            yield from self._funnel(num_good)

    def last(self) -> Iterator[Point]:
        """Yield the scores, once there is a report."""
        report = next((node for node in self.run.plan.nodes if node.stage == "report"), None)
        artifact = self.store.get(report.key) if report is not None else None
        for arm in artifact.json("summary.json")["arms"] if artifact is not None else ():
            for row in arm["scores"]:
                if row.get("answer_type") is None:
                    names = ("base", "adapted", "difference", "ci_low", "ci_high")
                    values = {name: row.get(name) for name in names}
                    yield Point(f"scores/{_of(arm['name'])}{row['benchmark']}", _numbers(values), 0)

    def _finished(self, event: events.NodeFinished, num_good: int) -> Iterator[Point]:
        node = self.run.by_id.get(event.node)
        if node is None:
            return
        is_small = len(self.run.plan.nodes) < MANY_NODES
        told = {"wall_s": event.wall_s, "cpu_s": event.cpu_s, "memory_gb": event.peak_memory_gb}
        yield Point(f"nodes/{node.id if is_small else node.stage}", told, num_good)
        artifact = self.store.get(node.key)
        for row in artifact.rows("losses") if artifact is not None else ():
            values = {name: value for name, value in row.items() if name != "step"}
            yield Point(node.id, _numbers(values), int(row["step"]))

    def _usage(self) -> Point:
        nodes = [self.run.nodes[name] for name in self.run.lively]
        self._num_usages += 1
        values = {
            "memory_gb": sum(node.memory_gb for node in nodes),
            "cpu_percent": sum(node.cpu_percent for node in nodes),
            "gpu_memory_gb": sum(node.gpu_memory_gb or 0.0 for node in nodes),
        }
        return Point("usage", values, self._num_usages)

    def _funnel(self, step: int) -> Iterator[Point]:
        for name, arm in self.run.arms.items():
            if len(arm.funnel) != len(self._funnels.get(name, ())):
                self._funnels[name] = dict(arm.funnel)
                yield Point(f"funnel/{_of(name)}".rstrip("/"), dict(arm.funnel), step)


def _of(arm: str) -> str:
    return "" if arm == "main" else f"{arm}/"


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def about(run: Run, folder: Path) -> About:
    """Return what a tracker is told of a run: nothing of the machine's paths or variables."""
    facts, plan = run.facts(), run.plan()
    told = {name: facts[name] for name in _FACTS if facts.get(name) is not None}
    told |= {name: facts["settings"][name] for name in _SETTINGS if name in facts["settings"]}
    raw = next((node.params.get("raw") for node in plan.nodes if node.stage == "report"), None)
    told |= {"num_nodes": len(plan.nodes)} | ({"recipe": raw} if raw else {})
    return About(run.id, plan.recipe, told, folder, bool(facts["settings"].get("is_offline")))


def feed(tracker: Tracker, run: Run, store: Store) -> str:
    """Hand on a run's numbers until it has ended; return its last state."""
    reader = Reader(overview.of_plan(run.plan(), store), store)
    log, began = LogReader(run.events_path), time.time()
    while True:
        _hand_on(tracker, (point for event in log.latest() for point in reader.points(event)))
        state = _state(reader.run.status(), began)
        if state != "running":
            _hand_on(tracker, reader.last())
            return state
        time.sleep(POLL_S)


def _state(status: RunStatus, since: float) -> str:
    """Return the state of a run; one that has not begun within a minute never will."""
    if not status.holder and time.time() - since > BEGIN_S:
        return "killed"
    return runs.alive_or_killed(status).state


def _hand_on(tracker: Tracker, points: Iterable[Point]) -> None:
    for point in points:
        if point.values:
            tracker.log(*point)


def end_after(run: Run) -> None:
    """End this process some minutes after the run, whatever hangs."""
    began = time.time()
    while _state(run.status(), began) == "running":
        time.sleep(GRACE_S / 20)
    time.sleep(GRACE_S)
    print("the tracker takes too long; given up", flush=True)
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Feed one tracker: its name, the folder of the run, the store."""
    name, folder, root = arguments
    run, store = Run(Path(folder)), Store(Path(root))
    threading.Thread(target=end_after, args=(run,), daemon=True).start()
    module = importlib.import_module(f"engine.cli.trackers.{name}")
    tracker: Tracker = module.open_tracker(about(run, run.path / "trackers" / name))
    state = feed(tracker, run, store)
    tracker.close(has_failed=state not in ("finished", "stopped"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
