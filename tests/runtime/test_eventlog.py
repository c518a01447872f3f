from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runtime import eventlog, events, status
from engine.runtime.eventlog import EventLog, LogReader, line_of, read
from tests.runtime import test_events as known
from tests.runtime.fake_run import execute
from tests.runtime.fake_stages import PlanBuilder


def write(path: Path, found: Iterable[events.Event]) -> None:
    log = EventLog(path)
    for event in found:
        log.append(event)
    log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_a_torn_last_line_is_left_for_later(path: Path):
    write(path, known.ALL[:2])
    whole = line_of(known.BEGAN)
    reader = LogReader(path)
    with path.open("a") as log:
        log.write(whole[:20])
    assert list(reader.every()) == list(known.ALL[:2])
    with path.open("a") as log:
        log.write(whole[20:])

    assert list(reader.every()) == [known.BEGAN]
    assert reader.num_unreadable == 0


def test_a_log_that_is_not_there_yet_holds_nothing(path: Path):
    reader = LogReader(path)
    assert list(reader.latest()) == []
    write(path, [known.STARTED])

    assert list(reader.latest()) == [known.STARTED]


def test_a_line_of_a_newer_engine_is_passed_over_and_counted(path: Path):
    with path.open("w") as log:
        log.write(line_of(known.STARTED))
        log.write('{"type": "node_teleported", "time": 2.0, "node": "b"}\n')
        log.write(line_of(known.BEGAN))
    reader = LogReader(path)

    assert list(reader.latest()) == [known.STARTED, known.BEGAN]
    assert reader.num_unreadable == 1


def test_flipped_bits_cost_their_lines_and_no_more(path: Path):
    write(path, known.ALL)
    whole = path.read_bytes()
    rng = random.Random(3)
    for _ in range(400):
        place = rng.randrange(len(whole))
        flipped = bytes([whole[place] ^ 1 << rng.randrange(8)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        num = len(known.ALL)

        assert len(read(path)) >= num - 2, place  # a lost line end joins two lines
        assert status.fold(LogReader(path).latest()).state in ("running", "failed", "stopped")


def test_reading_goes_on_where_it_stopped(path: Path):
    write(path, known.ALL[:2])
    reader = LogReader(path)
    assert list(reader.every()) == list(known.ALL[:2])
    write(path, known.ALL[2:4])

    assert list(reader.every()) == list(known.ALL[2:4])


def test_blocks_end_between_lines_wherever_they_are_cut(path: Path, monkeypatch):
    write(path, known.ALL)
    for size in (7, 64, 200):
        monkeypatch.setattr(eventlog, "BLOCK_BYTES", size)

        assert read(path) == list(known.ALL)


def test_progress_is_logged_every_other_second_and_at_its_end(path: Path):
    write(
        path,
        [
            events.NodeProgress(time=100 + n / 10, node="b", done=n, total=30, unit="rows")
            for n in range(31)
        ],
    )

    assert [event.done for event in read(path)] == [0, 20, 30]


def test_progress_is_logged_after_a_clock_that_was_set_back(path: Path):
    steps = ((5000.0, 1), (1000.0, 2), (1001.0, 3), (1002.0, 4))
    write(
        path,
        [events.NodeProgress(time=t, node="b", done=n, total=9, unit="rows") for t, n in steps],
    )

    assert [event.done for event in read(path)] == [1, 2, 4]


def node_events(nodes: tuple[str, ...]) -> st.SearchStrategy[events.Event]:
    node, number = st.sampled_from(nodes), st.integers(0, 99)
    return st.one_of(
        st.builds(events.NodeStarted, time=number, node=node, pid=number),
        st.builds(events.NodeWaiting, time=number, node=node),
        st.builds(
            events.NodeProgress,
            time=number,
            node=node,
            done=number,
            total=st.none() | number,
            unit=st.sampled_from(["rows", 'a "b", {}']),
        ),
        st.builds(
            events.NodeUsage,
            time=number,
            node=node,
            memory_gb=number,
            cpu_percent=number,
            gpu_memory_gb=st.none() | number,
        ),
        st.builds(
            events.NodeRetried, time=number, node=node, attempt=number, wait_s=number, reason=node
        ),
    )


@given(st.lists(node_events(("a", 'b"\\', "c/d", "é\n")), max_size=30), st.booleans())
def test_leaving_out_old_progress_never_changes_where_a_run_stands(
    tmp_path_factory: pytest.TempPathFactory, happened: list[events.Event], ends: bool
):
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    last = [known.STOPPED] if ends else []
    path.write_text("".join(map(line_of, [known.STARTED, *happened, *last])))
    reader = LogReader(path)

    assert status.fold(reader.latest()) == status.fold(read(path))
    assert reader.num_unreadable == 0


def test_every_line_of_a_real_run_fits_the_schema(tmp_path: Path):
    build = PlanBuilder()
    build.add("count")
    build.add("slow", "count", num_batches=4)
    build.add("fail", "count")
    build.add("double", "fail")
    run, _ = execute(build.plan(), tmp_path / "store")

    lines = run.events_path.read_text().splitlines()
    validator = jsonschema_rs.validator_for(known.schema())
    assert len(lines) > 6
    for line in lines:
        validator.validate(json.loads(line))
