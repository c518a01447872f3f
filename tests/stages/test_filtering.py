from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import plugin
from engine.backends import Completion, Request
from engine.filters import FilterContext
from engine.images import ImageBank
from engine.plan.journal import cut
from engine.plan.stage import Part, PartDone, Tools
from engine.plugin import bound_use
from engine.records import Record
from engine.stages import _filtering, _findings
from tests.filters.building import artifact, kept_nowhere, verdicts_of
from tests.sources.building import picture
from tests.stages.running import Bench
from tests.stages.talking import FakeSession, a_task, said

PIXELS, HASHES = {"use": "near_duplicate"}, {"use": "near_duplicate", "max_distance_bits": 2}
JUDGE = {"use": "consistency", "judge": {"model": "judge"}}
SIZED = {"use": "image_size", "min_side_px": 8}
OTHER_JUDGE = {"use": "consistency", "judge": {"model": "other"}}


def rule(request: Request) -> Completion:
    """Judge by the number in the question."""
    return said("Yes" if int(request.turns[0].text[9:-1]) % 3 else "No")


class Workplace:
    """Tasks about pictures, some of them shown twice, and what each process asks the judge."""

    def __init__(self, folder: Path, num: int) -> None:
        rng = random.Random(num)
        shown = [picture(rng.randrange(num)) for _ in range(num)]
        self.pairs = artifact(folder / "pairs", [(f"{n}", p, "x") for n, p in enumerate(shown)])
        self.tasks = [a_task(pair, n) for n, pair in enumerate(self.pairs.records("rows"))]
        self.bench = Bench(folder, prompts={"consistency@2": "{{ instruction }}"})
        self.asked: list[list[str]] = []

    def _filters(
        self, uses: Sequence[Mapping[str, Any]], scratch: str, part: Part | None
    ) -> list[_filtering.OpenFilter]:
        tools = replace(self.bench.tools(scratch), part=part)
        asked = self.asked

        class Noting(FakeSession):
            def generate(self, requests: Any, sampling: Any) -> list[Completion]:
                asked.append([request.turns[0].text for request in requests])
                return super().generate(requests, sampling)

        context = _filtering.filter_context([self.pairs], {}, tools)
        bound = [bound_use("filters", use) for use in uses]
        return _filtering.open_filters(bound, context, lambda use: Noting(rule))

    def part(self, uses: Sequence[Mapping[str, Any]], part: Part) -> None:
        tools = replace(self.bench.tools("shared"), part=part)
        filters = self._filters(uses, "shared", part)
        with pytest.raises(PartDone):
            _findings.find_out(filters, self._shards, tools, len(self.tasks), "tasks")

    def whole(self, uses: Sequence[Mapping[str, Any]], scratch: str) -> list[Any]:
        filters = self._filters(uses, scratch, None)
        tools = self.bench.tools(scratch)
        _findings.find_out(filters, self._shards, tools, len(self.tasks), "tasks")
        found = [_filtering.apply(filters, n, rows) for n, rows in enumerate(self._shards())]
        return [drop for drops in found for _, drop in drops]

    def _shards(self) -> list[list[Record]]:
        return list(cut(self.tasks, _filtering.SHARD_ROWS))


@pytest.mark.parametrize(
    "uses",
    [
        [],
        [JUDGE],
        [SIZED, JUDGE, PIXELS],
        [PIXELS, JUDGE],
        [SIZED, HASHES, PIXELS, JUDGE],
        [PIXELS, JUDGE, HASHES, OTHER_JUDGE],
    ],
    ids=lambda uses: "-".join(use["use"] for use in uses) or "none",
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_ask_what_one_process_asks_and_leave_nothing_to_ask(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uses: Sequence[Mapping[str, Any]],
    order: Sequence[int],
) -> None:
    monkeypatch.setattr(_filtering, "SHARD_ROWS", 4)
    work = Workplace(tmp_path, 26)
    expected = work.whole(uses, "alone")
    alone, work.asked = work.asked, []

    for index in order:
        work.part(uses, Part(index, 3))
    by_parts, work.asked = work.asked, []

    assert expected == work.whole(uses, "shared")
    assert Counter(map(tuple, alone)) == Counter(map(tuple, by_parts))
    assert work.asked == []


def test_a_judge_never_sees_what_was_dropped_before(tmp_path: Path) -> None:
    work = Workplace(tmp_path, 26)

    drops = work.whole([PIXELS, JUDGE], "alone")

    num_shown_again = sum(drop is not None and drop[0] == "near_duplicate" for drop in drops)
    assert num_shown_again > 3
    assert sum(map(len, work.asked)) == len(drops) - num_shown_again


def test_a_lost_shard_of_one_judge_does_not_end_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_filtering, "SHARD_ROWS", 4)
    work = Workplace(tmp_path, 12)
    work.whole([JUDGE, OTHER_JUDGE], "s")
    (torn,) = work.bench.tools("s").scratch.glob("00-*/*/*1.jsonl")
    torn.write_bytes(torn.read_bytes()[:-3])
    monkeypatch.setattr(f"{__name__}.rule", lambda request: said("Yes"))  # it is not sure any more
    drops = work.whole([JUDGE, OTHER_JUDGE], "s")

    assert [drop for drop in drops[4:8] if drop] == []
    assert len(work.asked) == 3 + 3 + 1 + 1


def test_a_part_that_is_ahead_asks_nothing_that_another_has_asked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_filtering, "SHARD_ROWS", 4)
    work = Workplace(tmp_path, 24)
    uses = [JUDGE, PIXELS, OTHER_JUDGE]
    seen = iter(range(1000))
    has = Tools.has

    def meanwhile(tools: Tools, name: str, number: int) -> bool:
        if next(seen) == 8:  # of six shards, when the own ones are done
            work.part(uses, Part(1, 2))
        return has(tools, name, number)

    monkeypatch.setattr(Tools, "has", meanwhile)
    work.part(uses, Part(0, 2))

    asked = [text for texts in work.asked for text in texts]
    assert max(Counter(asked).values()) == 2  # once by each judge


def test_a_part_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_filtering, "SHARD_ROWS", 4)
    work = Workplace(tmp_path, 9)

    work.part([JUDGE], Part(0, 2))

    assert work.bench.progress == [(4, 5, "tasks"), (5, 5, "tasks")]


SETTINGS = {"caption_length": {"min_words": 2}, "duplicate_instruction": {"scope": "all"}}
OF_TASKS = ("answer_in_question", "duplicate_instruction", "language", "refusal", "task_length")
# Those that ask a model decide about a row by what it said of that row.
RULES = [n for n in plugin.names("filters") if not plugin.load("filters", n).inquire]


@pytest.mark.parametrize("name", RULES)
def test_a_filter_that_remembers_nothing_minds_no_order(tmp_path: Path, name: str) -> None:
    work = Workplace(tmp_path, 20)
    pairs = list(work.pairs.records("rows"))
    of_tasks = [a_task(pair, number % 7) for number, pair in enumerate(pairs)]
    records = of_tasks if name in OF_TASKS else pairs
    plug = plugin.load("filters", name)
    settings = SETTINGS.get(name, {})
    params = plugin.bind(plug.params, settings)
    bank = ImageBank([work.pairs.path])

    def verdicts(shown: list[Record]) -> list[Any]:
        context = FilterContext(bank, {"b": work.pairs}, {}, kept_nowhere, 0)
        return verdicts_of(plug, params, context, shown)

    assert plug.remembers == (verdicts(records) != verdicts(records[::-1])[::-1])
