"""What happened in a run: an append-only log of typed events; status is a fold over it.

One JSON line per event in `events.jsonl`. A line is written by one call, so a kill loses no earlier
line; a torn last line is ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

PROGRESS_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run began. `holder` identifies its process, so that a dead run is known as dead."""

    time: float  # seconds since 1970, as in every event
    run: str
    recipe: str
    nodes: tuple[str, ...]
    holder: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCached:
    """The artifact was there already."""

    time: float
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLinked:
    """Equal work on equal inputs had been done under another key."""

    time: float
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted:
    """A process was started for a node."""

    time: float
    node: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWaiting:
    """Another run is at work on the same key; its result will be used."""

    time: float
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """How far a node is."""

    time: float
    node: str
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsage:
    """What the processes of a node take at this moment."""

    time: float
    node: str
    memory_gb: float
    cpu_percent: float  # 100 is one core
    gpu_memory_gb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRetried:
    """A node will be tried again after a pause."""

    time: float
    node: str
    attempt: int  # the first retry is 1
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished:
    """An artifact was published."""

    time: float
    node: str
    wall_s: float
    cpu_s: float
    peak_memory_gb: float
    counts: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFailed:
    """A node's process ended without an artifact."""

    time: float
    node: str
    wall_s: float
    cpu_s: float
    peak_memory_gb: float
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSkipped:
    """A node could not run because of another one."""

    time: float
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Nothing is left to do; `failed` names the nodes that failed."""

    time: float
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopped:
    """A signal ended the run; finished nodes stay."""

    time: float
    signal: int


NodeEvent = (
    NodeCached
    | NodeLinked
    | NodeStarted
    | NodeWaiting
    | NodeProgress
    | NodeUsage
    | NodeRetried
    | NodeFinished
    | NodeFailed
    | NodeSkipped
)
Event = RunStarted | NodeEvent | RunFinished | RunStopped

_TYPES: dict[str, type[Any]] = {
    "run_started": RunStarted,
    "node_cached": NodeCached,
    "node_linked": NodeLinked,
    "node_started": NodeStarted,
    "node_waiting": NodeWaiting,
    "node_progress": NodeProgress,
    "node_usage": NodeUsage,
    "node_retried": NodeRetried,
    "node_finished": NodeFinished,
    "node_failed": NodeFailed,
    "node_skipped": NodeSkipped,
    "run_finished": RunFinished,
    "run_stopped": RunStopped,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_TUPLES = ("nodes", "failed")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Where a node stands: waiting, running, ran, cached, linked, failed, skipped, stopped."""

    state: str = "waiting"
    done: int = 0
    total: int | None = None
    unit: str = ""
    started_at: float | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_gb: float = 0.0
    attempts: int = 0  # retries so far
    memory_gb: float = 0.0  # now
    cpu_percent: float = 0.0
    gpu_memory_gb: float | None = None
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


def to_json(event: Event) -> dict[str, Any]:
    """Return the JSON form of an event."""
    return {"type": _NAMES[type(event)], **asdict(event)}


def from_json(data: Mapping[str, Any]) -> Event:
    """Read an event. Raise ValueError for a type this engine does not know."""
    kind = _TYPES.get(data["type"])
    if kind is None:
        raise ValueError(f"unknown event {data['type']!r}")
    values = {k: tuple(v) if k in _TUPLES else v for k, v in data.items() if k != "type"}
    event: Event = kind(**values)
    return event


class EventLog:
    """Appends events to a file; of a node's progress only a line every other second."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._progress_at: dict[str, float] = {}
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, event: Event) -> None:
        """Write one line, by one call."""
        if isinstance(event, NodeProgress) and event.done != event.total:
            if event.time - self._progress_at.get(event.node, 0.0) < PROGRESS_EVERY_S:
                return
            self._progress_at[event.node] = event.time
        os.write(self._descriptor, (json.dumps(to_json(event)) + "\n").encode())

    def close(self) -> None:
        """Bring the log to the disk and close it."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Return the events from a byte offset on, and the offset to go on from.

    A last line without its end is left for the next call; it may be torn or still being written.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    return [from_json(json.loads(line)) for line in whole.splitlines()], offset + len(whole)


def fold(events: Iterable[Event], status: RunStatus | None = None) -> RunStatus:
    """Return the status after some events, going on from an earlier one."""
    status = status or RunStatus()
    for event in events:
        status = _after(status, event)
    return status


def _after(status: RunStatus, event: Event) -> RunStatus:
    status = replace(status, changed_at=event.time)
    if isinstance(event, RunStarted):
        nodes = {node: NodeStatus() for node in event.nodes}
        return replace(
            status,
            run=event.run,
            recipe=event.recipe,
            started_at=event.time,
            holder=event.holder,
            nodes=nodes,
        )
    if isinstance(event, RunFinished):
        return replace(status, state="failed" if event.failed else "finished")
    if isinstance(event, RunStopped):
        return replace(status, state="stopped", nodes=_stopped(status.nodes))
    before = status.nodes.get(event.node, NodeStatus())
    return replace(status, nodes={**status.nodes, event.node: node_after(before, event)})


def node_after(node: NodeStatus, event: NodeEvent) -> NodeStatus:
    """Return where a node stands after an event of its own."""
    match event:
        case NodeCached():
            return replace(node, state="cached", message=event.reason)
        case NodeLinked():
            return replace(node, state="linked")
        case NodeStarted():
            return replace(node, state="running", started_at=event.time)
        case NodeWaiting():
            return replace(node, message="another run is at work on it")
        case NodeProgress():
            return replace(node, done=event.done, total=event.total, unit=event.unit, message="")
        case NodeUsage():
            return replace(
                node,
                memory_gb=event.memory_gb,
                cpu_percent=event.cpu_percent,
                gpu_memory_gb=event.gpu_memory_gb,
            )
        case NodeRetried():
            return replace(node, attempts=node.attempts + 1, message=event.reason)
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
    }


def _stopped(nodes: Mapping[str, NodeStatus]) -> dict[str, NodeStatus]:
    return {
        name: replace(node, state="stopped") if node.state == "running" else node
        for name, node in nodes.items()
    }
