"""What happens in a run, as typed events, and their form in JSON (schemas/event.schema.json).

`eventlog.py` writes them to a file and reads them back; `status.py` folds them into where a run
stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

MAX_TIME = 1e11  # seconds since 1970: a time beyond it is a damaged one


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
    """What the processes of a node take at the moment."""

    time: float
    node: str
    memory_gb: float
    cpu_percent: float  # 100 is one core
    gpu_memory_gb: float | None  # None without a GPU, or where it cannot be told


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRetried:
    """A process of a node was lost in a way that may pass; another attempt follows."""

    time: float
    node: str
    attempt: int  # of the retry that follows; the first one is 1
    wait_s: float  # pause before it
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _is_counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_number, value.values()))


# A damaged line may still be JSON: nothing of another type may get behind this door.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
    "int": lambda value: isinstance(value, int),
    "int | None": lambda value: value is None or isinstance(value, int),
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "tuple[str, ...]": _is_names,
    "Mapping[str, Any]": lambda value: isinstance(value, Mapping),
    "Mapping[str, float]": _is_counts,
}
_FIELDS = {
    kind: tuple((field.name, _CHECKS[str(field.type)]) for field in fields(kind))
    for kind in _TYPES.values()
}


def to_json(event: Event) -> dict[str, Any]:
    """Return the JSON form (schemas/event.schema.json); the type comes first, then the time."""
    names = (name for name, _ in _FIELDS[type(event)])
    return {"type": _NAMES[type(event)], **{name: getattr(event, name) for name in names}}


def from_json(data: Any) -> Event:
    """Read what `to_json` wrote; fields of a newer engine are left out.

    Raises ValueError for a type that is not known here, and for values that no event has.
    """
    kind = _TYPES.get(str(data.get("type"))) if isinstance(data, dict) else None
    if kind is None:
        raise ValueError("no event that is known here")
    values: dict[str, Any] = {}
    for name, is_right in _FIELDS[kind]:
        value = data.get(name)
        if not is_right(value):
            raise ValueError(f"{data['type']}: `{name}` cannot be {value!r}")
        values[name] = tuple(value) if isinstance(value, list) else value
    if not 0 <= values["time"] < MAX_TIME:
        raise ValueError(f"{data['type']}: it cannot have been {values['time']}")
    event: Event = kind(**values)
    return event
