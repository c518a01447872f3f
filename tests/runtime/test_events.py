from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import pytest

from engine import package_data
from engine.runtime import events
from engine.runtime.events import from_json, to_json

COSTS = {"wall_s": 2.0, "cpu_s": 1.5, "peak_memory_gb": 0.3}
STARTED = events.RunStarted(
    time=1.0, run="r", recipe="fake", nodes=("a", "b", "c"), holder={"pid": 1}
)
CACHED = events.NodeCached(time=2.0, node="a", reason="in the store")
LINKED = events.NodeLinked(time=2.0, node="a")
BEGAN = events.NodeStarted(time=3.0, node="b", pid=7)
WAITING = events.NodeWaiting(time=3.5, node="b")
PROGRESS = events.NodeProgress(time=4.0, node="b", done=1, total=None, unit="rows")
USAGE = events.NodeUsage(time=4.0, node="b", memory_gb=0.5, cpu_percent=99.0, gpu_memory_gb=None)
RETRIED = events.NodeRetried(time=4.5, node="b", attempt=1, wait_s=4.0, reason="no network")
FINISHED = events.NodeFinished(time=5.0, node="b", counts={"rows": 3}, **COSTS)
FAILED = events.NodeFailed(time=5.0, node="b", message="no", hint=None, **COSTS)
SKIPPED = events.NodeSkipped(time=6.0, node="c", reason="`b` failed")
ALL_FINISHED = events.RunFinished(time=7.0, failed=("b",))
STOPPED = events.RunStopped(time=7.0, signal=2)
ALL: tuple[events.Event, ...] = (
    STARTED,
    CACHED,
    LINKED,
    BEGAN,
    WAITING,
    PROGRESS,
    USAGE,
    RETRIED,
    FINISHED,
    FAILED,
    SKIPPED,
    ALL_FINISHED,
    STOPPED,
)


def schema() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(
        (package_data.folder("schemas") / "event.schema.json").read_text()
    )
    return found


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_an_event_survives_json_and_fits_the_schema(event: events.Event):
    written = json.loads(json.dumps(to_json(event)))

    jsonschema_rs.validate(schema(), written)
    assert from_json(written) == event


def test_no_type_of_event_is_left_out_here():
    assert {type(event) for event in ALL} == set(typing.get_args(events.Event))


def test_an_event_with_a_field_of_another_does_not_fit_the_schema():
    wrong = to_json(LINKED) | {"pid": 3}

    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(schema(), wrong)


def test_a_field_of_a_newer_engine_is_left_out():
    assert from_json(to_json(BEGAN) | {"host": "here"}) == BEGAN


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "node_teleported", "time": 1.0, "node": "b"},
        {"type": ["node_linked"], "time": 1.0, "node": "b"},
        {"type": "node_linked", "time": 1.0},
        {"type": "node_linked", "time": 1e300, "node": "b"},
        {"type": "node_linked", "time": "1.0", "node": "b"},
        to_json(PROGRESS) | {"done": float("inf")},
        to_json(FINISHED) | {"counts": {"rows": "3"}},
        [],
    ],
)
def test_what_is_no_event_is_refused(wrong: Any):
    with pytest.raises(ValueError, match=r"no event that is known|cannot "):
        from_json(wrong)
