from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.backends import Flow, Result
from engine.diagnostics import StageError
from engine.plan.journal import cut
from engine.plugin import ModelUse, bound_use
from engine.records import Record
from engine.stages import _filtering, _findings
from engine.stages._isolation import suspicion_of
from engine.stages._models import LazySession, Models
from tests.filters.building import artifact
from tests.sources.building import picture
from tests.stages.running import Bench
from tests.stages.talking import FakeSession, a_task, said

PIXELS = {"use": "near_duplicate"}


def judged_by(name: str) -> dict[str, Any]:
    return {"use": "consistency", "judge": {"model": name}}


class Continuous(FakeSession):
    """Answers flow by flow, and remembers how many came in one go."""

    is_continuous = True

    def __init__(self, name: str, notes: list[str]) -> None:
        super().__init__(lambda request: said("No" if "3" in request.turns[0].text else "Yes"))
        self.name = name
        self.notes = notes
        notes.append(f"{name} loaded")

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        num = 0
        for num, flow in enumerate(flows, start=1):
            ((_, result),) = super().run([flow])
            yield num - 1, result
        self.notes.append(f"{self.name} asked {num}")

    def close(self) -> None:
        self.notes.append(f"{self.name} closed")


class Workplace:
    """Tasks in shards of four, and models that note what is done with them."""

    def __init__(self, folder: Path, num: int) -> None:
        pairs = [(f"{n}", picture(n // 2), "x") for n in range(num)]
        self.pairs = artifact(folder / "pairs", pairs)
        self.tasks = [a_task(pair, n) for n, pair in enumerate(self.pairs.records("rows"))]
        self.bench = Bench(folder, prompts={"consistency@2": "{{ instruction }}"})
        self.notes: list[str] = []
        self.num_read = 0

    def decided(self, *uses: Any, ahead: bool = True, scratch: str = "s") -> list[str | None]:
        """Return the filter that drops each task; `ahead`: found out before it is decided."""
        tools = self.bench.tools(scratch)
        bound = [bound_use("filters", use) for use in uses]
        with Models(self._open) as models:
            context = _filtering.filter_context([self.pairs], {}, tools)
            filters = _filtering.open_filters(bound, context, models.get)
            if ahead:
                _findings.find_out(filters, self._shards, tools, len(self.tasks), "tasks")
            found = [_filtering.apply(filters, n, rows) for n, rows in enumerate(self._shards())]
            return [drop and drop[0] for drops in found for _, drop in drops]

    def _open(self, use: ModelUse) -> LazySession:
        return LazySession(lambda: Continuous(use.model, self.notes), lambda: True)

    def _shards(self) -> Iterator[Sequence[Record]]:
        for rows in cut(self.tasks, _filtering.SHARD_ROWS):
            self.num_read += 1
            yield rows


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setattr(_filtering, "SHARD_ROWS", 4)
    return Workplace(tmp_path, 26)


def test_a_judge_gets_the_rows_of_all_shards_in_one_go_and_one_judge_is_loaded_at_a_time(
    work: Workplace,
) -> None:
    found = work.decided(judged_by("a"), judged_by("b"))

    assert found.count("consistency") == 3  # 3, 13 and 23 of seven shards
    asked = ["a loaded", "a asked 26", "a closed", "b loaded", "b asked 23", "b closed"]
    assert work.notes == asked


def test_two_filters_share_the_judge_that_both_name(work: Workplace) -> None:
    work.decided(judged_by("a"), judged_by("a"))

    assert work.notes == ["a loaded", "a asked 26", "a asked 23", "a closed"]


@pytest.mark.parametrize(
    "uses",
    [
        [PIXELS, judged_by("a")],
        [judged_by("a"), PIXELS, judged_by("b")],
        [PIXELS, judged_by("a"), {**PIXELS, "max_distance_bits": 2}, judged_by("b"), PIXELS],
    ],
    ids=["before", "between", "many"],
)
def test_what_is_found_out_ahead_decides_as_what_is_found_out_when_it_is_needed(
    work: Workplace, uses: list[Any]
) -> None:
    ahead = work.decided(*uses)
    assert any(label and label.startswith("near_duplicate") for label in ahead)
    assert ahead == work.decided(*uses, ahead=False, scratch="other")


def test_what_is_kept_is_neither_asked_nor_read_again(work: Workplace) -> None:
    uses = (judged_by("a"), judged_by("b"))
    first = work.decided(*uses)
    work.notes.clear()
    work.num_read = 0

    assert work.decided(*uses) == first
    assert work.notes == []
    assert work.num_read == 7  # to decide


def test_a_model_that_is_at_work_keeps_its_memory_when_another_is_asked(tmp_path: Path) -> None:
    notes: list[str] = []
    models = Models(lambda use: LazySession(lambda: Continuous(use.model, notes), lambda: True))
    first, second = models.get(ModelUse(model="a")), models.get(ModelUse(model="b"))

    def asks_another() -> Flow[int]:
        yield from ()
        return len(dict(second.run(iter([_nothing()]))))

    assert dict(first.run(iter([asks_another()]))) == {0: 1}
    assert "a closed" not in notes


def _nothing() -> Flow[int]:
    yield from ()
    return 0


def test_progress_goes_once_from_nothing_to_all_rows(work: Workplace) -> None:
    work.decided(judged_by("a"), judged_by("b"))

    told = [done for done, _, _ in work.bench.progress]
    assert told == sorted(told)
    assert (told[6], told[-1]) == (13, 26)  # after one judge of two, and at the end


def test_a_crash_with_something_in_hand_is_held_against_no_other_model(tmp_path: Path) -> None:
    first = Bench(tmp_path).tools("s")
    again = replace(first, machine=replace(first.machine, has_crashed=True))
    for life in range(4):
        suspicion_of(first).begin(f"crashes in life {life}")
        models = Models.of(again)
        for name in "ab":
            models.get(ModelUse(model=name))


def test_a_node_that_crashes_with_nothing_in_hand_is_given_up(tmp_path: Path) -> None:
    tools = Bench(tmp_path).tools("s")
    tools = replace(tools, machine=replace(tools.machine, has_crashed=True))
    for _ in range(2):
        Models.of(tools).get(ModelUse(model="a"))

    with pytest.raises(StageError, match="crashed 3 times with no request in hand"):
        Models.of(tools).get(ModelUse(model="a"))
