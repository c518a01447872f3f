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
