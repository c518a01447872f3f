from __future__ import annotations

from pathlib import Path

import pytest

from engine.runtime import runs, timings
from engine.runtime.store import Store
from tests.runtime.fake_run import execute
from tests.runtime.fake_stages import PlanBuilder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two runs of two nodes each."""
    for note in ("a", "b"):
        build = PlanBuilder()
        build.add("count", note=note)
        build.add("double", "count", note=note)
        execute(build.plan(), tmp_path)
    return Store(tmp_path)


def test_what_nodes_took_is_known_run_by_run(store: Store):
    found = timings.measurements(store)

    assert [measured.stage for measured in found] == ["count", "double"] * 2
    assert found[0].run == runs.all_runs(store)[0].id


@pytest.mark.parametrize("damage", [b"\0" * 60, b'{"type": "node_finished", "node": 3}', b"\xff{"])
def test_a_damaged_line_of_an_event_log_is_passed_over(store: Store, damage: bytes):
    path = runs.all_runs(store)[0].events_path
    lines = path.read_bytes().split(b"\n")
    place = next(i for i, line in enumerate(lines) if timings._FINISHED in line[:40])
    lines[place] = damage
    path.write_bytes(b"\n".join(lines))

    assert len(timings.measurements(store)) == 3


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"started_at": "noon"}', b"\xff"])
def test_a_run_whose_facts_are_damaged_is_passed_over(store: Store, damage: bytes):
    first, second = runs.all_runs(store)
    (first.path / "run.json").write_bytes(damage)

    assert runs.all_runs(store) == [second]
    assert {measured.run for measured in timings.measurements(store)} == {second.id}


@pytest.mark.parametrize("num_bytes", [1, 7, 64, 1000])
def test_a_log_is_read_in_pieces_of_any_size(
    store: Store, num_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    whole = timings.measurements(store)
    monkeypatch.setattr(timings, "_CHUNK_BYTES", num_bytes)

    assert timings.measurements(store) == whole
    assert len(whole) == 4


def test_a_name_that_looks_like_an_event_is_none(store: Store):
    path = runs.all_runs(store)[0].events_path
    with path.open("ab") as log:
        log.write(b'{"type": "node_progress", "time": 1.0, "node": "x", "unit": "node_finished"}\n')
        log.write(b'{"type": "node_finished", "time": 2.0, "node": "torn')

    assert len(timings.measurements(store)) == 4
