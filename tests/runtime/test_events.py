from __future__ import annotations

import json
import typing
from pathlib import Path

import jsonschema_rs
import pytest

from engine import package_data
from engine.runtime import events
from engine.runtime.events import EventLog, fold, from_json, read, to_json

COSTS = {"wall_s": 2.0, "cpu_s": 1.5, "peak_memory_gb": 0.3}
STORY = [
    events.RunStarted(time=1.0, run="r", recipe="fake", nodes=("a", "b", "c"), holder={"pid": 1}),
    events.NodeCached(time=2.0, node="a", reason="in the store"),
    events.NodeLinked(time=2.0, node="a"),
    events.NodeStarted(time=3.0, node="b", pid=7),
    events.NodeProgress(time=4.0, node="b", done=1, total=None, unit="rows"),
    events.NodeFinished(time=5.0, node="b", counts={"rows": 3}, **COSTS),
    events.NodeFailed(time=5.0, node="b", message="no", hint=None, **COSTS),
    events.NodeSkipped(time=6.0, node="c", reason="`b` failed"),
    events.RunFinished(time=7.0, failed=("b",)),
    events.RunStopped(time=7.0, signal=2),
    events.NodeWaiting(time=3.5, node="b"),
]
ALL = [
    *STORY,
    events.NodeUsage(time=3.5, node="b", memory_gb=0.2, cpu_percent=99.0, gpu_memory_gb=None),
    events.NodeRetried(time=3.5, node="b", attempt=1, wait_s=1.0, reason="the server hung up"),
]


def write(path: Path, found: list[events.Event]) -> None:
    log = EventLog(path)
    for event in found:
        log.append(event)
    log.close()


def test_every_event_survives_json_and_fits_the_schema():
    schema = json.loads((package_data.folder("schemas") / "event.schema.json").read_text())

    for event in ALL:
        written = json.loads(json.dumps(to_json(event)))
        jsonschema_rs.validate(schema, written)
        assert from_json(written) == event
    assert {type(event) for event in ALL} == set(typing.get_args(events.Event))


def test_an_event_with_a_field_of_another_does_not_fit_the_schema():
    schema = json.loads((package_data.folder("schemas") / "event.schema.json").read_text())
    wrong = to_json(ALL[2]) | {"pid": 3}

    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(schema, wrong)


def test_a_torn_last_line_is_ignored(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, STORY[:2])
    with path.open("a") as log:
        log.write('{"type": "node_sta')

    assert read(path)[0] == STORY[:2]


def test_reading_goes_on_where_it_stopped(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, STORY[:2])
    first, offset = read(path)
    write(path, STORY[2:4])

    assert first == STORY[:2]
    assert read(path, offset)[0] == STORY[2:4]


def test_progress_is_logged_every_other_second_and_at_its_end(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    steps = [
        events.NodeProgress(time=100 + n / 10, node="b", done=n, total=30, unit="rows")
        for n in range(31)
    ]
    write(path, steps)

    assert [event.done for event in read(path)[0]] == [0, 20, 30]


def test_status_is_a_fold():
    started, cached, _, began, progress, finished, *_ = STORY
    status = fold([started, cached, began, progress])

    assert (status.state, status.recipe) == ("running", "fake")
    assert {name: node.state for name, node in status.nodes.items()} == {
        "a": "cached",
        "b": "running",
        "c": "waiting",
    }
    assert status.nodes["b"].done == 1
    later = fold([finished, events.RunFinished(time=9.0, failed=())], status)
    assert (later.state, later.nodes["b"].state, later.nodes["b"].wall_s) == (
        "finished",
        "ran",
        2.0,
    )


def test_a_failed_node_fails_the_run():
    started, _, _, began, _, _, failed, skipped, finished, *_ = STORY
    status = fold([started, began, failed, skipped, finished])

    assert status.state == "failed"
    assert status.nodes["b"].message == "no"
    assert (status.nodes["c"].state, status.nodes["c"].message) == ("skipped", "`b` failed")


def test_a_stopped_run_leaves_no_node_running():
    started, _, _, began, *_, stopped, _ = STORY
    status = fold([started, began, stopped])

    assert (status.state, status.nodes["b"].state) == ("stopped", "stopped")
