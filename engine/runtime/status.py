"""Where a run stands: a fold over its events. Nothing else holds its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.runtime.events import (
    Event,
    NodeCached,
    NodeEvent,
    NodeFailed,
    NodeFinished,
    NodeLinked,
    NodeProgress,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    NodeUsage,
    NodeWaiting,
    RunFinished,
    RunStarted,
    RunStopped,
)

UNDER_WAY = ("running", "retrying")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Where a node stands.

    Its state: waiting, running, retrying, ran, cached, linked, failed, skipped, stopped.
    """

    state: str = "waiting"
    done: int = 0
    total: int | None = None
    unit: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    memory_gb: float = 0.0  # at the moment, as the next two
    cpu_percent: float = 0.0
    gpu_memory_gb: float | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_gb: float = 0.0
    message: str = ""  # why it failed, was skipped, was cached or is tried again
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands: running, finished, failed, stopped."""

    run: str = ""
    recipe: str = ""
    state: str = "running"
    started_at: float = 0.0
    changed_at: float = 0.0
    holder: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, NodeStatus] = field(default_factory=dict)


class Fold:
    """Takes in events one by one. A step costs the same however many nodes there are."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeStatus] = {}
        self._run = RunStatus()
        self._changed_at = 0.0

    def add(self, event: Event) -> None:
        """Take in an event."""
        self._changed_at = event.time
        match event:
            case RunStarted():
                self._start(event)
            case RunFinished():
                self._run = replace(self._run, state="failed" if event.failed else "finished")
            case RunStopped():
                self._run = replace(self._run, state="stopped")
                self.nodes |= {n: stopped(node) for n, node in self.nodes.items()}
            case _:
                before = self.nodes.get(event.node, NodeStatus())
                self.nodes[event.node] = node_after(before, event)

    def status(self) -> RunStatus:
        """Return where the run stands by now."""
        return replace(self._run, changed_at=self._changed_at, nodes=dict(self.nodes))

    def _start(self, event: RunStarted) -> None:
        self.nodes = dict.fromkeys(event.nodes, NodeStatus())
        self._run = RunStatus(
            run=event.run, recipe=event.recipe, started_at=event.time, holder=event.holder
        )


def fold(events: Iterable[Event]) -> RunStatus:
    """Return the status after some events."""
    found = Fold()
    for event in events:
        found.add(event)
    return found.status()


def node_after(node: NodeStatus, event: NodeEvent) -> NodeStatus:
    """Return where a node stands after an event of its own."""
    match event:
        case NodeProgress():
            return replace(
                node,
                state="running" if node.state == "retrying" else node.state,
                done=event.done,
                total=event.total,
                unit=event.unit,
                message="",
            )
        case NodeUsage():
            return replace(
                node,
                memory_gb=event.memory_gb,
                cpu_percent=event.cpu_percent,
                gpu_memory_gb=event.gpu_memory_gb,
            )
        case NodeStarted():
            begun = event.time if node.started_at is None else node.started_at
            attempts = max(node.attempts, 1)
            return replace(node, state="running", started_at=begun, attempts=attempts, message="")
        case NodeWaiting():
            return replace(node, message="another run is at work on it")
        case NodeRetried():
            message = f"tried again: {event.reason}"
            return replace(node, state="retrying", attempts=event.attempt + 1, message=message)
        case _:
            return _ended(node, event)


def _ended(
    node: NodeStatus, event: NodeCached | NodeLinked | NodeFinished | NodeFailed | NodeSkipped
) -> NodeStatus:
    node = replace(node, ended_at=event.time, message="", memory_gb=0.0, cpu_percent=0.0)
    match event:
        case NodeCached():
            return replace(node, state="cached", message=event.reason)
        case NodeLinked():
            return replace(node, state="linked")
        case NodeFinished():
            return replace(node, state="ran", counts=event.counts, **_costs(event))
        case NodeFailed():
            return replace(node, state="failed", message=event.message, **_costs(event))
        case NodeSkipped():
            return replace(node, state="skipped", message=event.reason)


def _costs(event: NodeFinished | NodeFailed) -> dict[str, Any]:
    return {
        "wall_s": event.wall_s,
        "cpu_s": event.cpu_s,
        "peak_memory_gb": event.peak_memory_gb,
        "gpu_memory_gb": None,
    }


def stopped(node: NodeStatus) -> NodeStatus:
    """Return where a node stands when its run has gone."""
    return replace(node, state="stopped") if node.state in UNDER_WAY else node
