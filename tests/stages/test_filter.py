from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from engine.artifacts import Artifact
from engine.backends import Choices, Completion, Flow, Likelihoods, Request, Result
from engine.diagnostics import StageError
from engine.plan.stage import Part, Tools
from engine.plugin import Use
from engine.records import from_json, user
from engine.stages import _filtering
from engine.stages import filter as filter_stage
from engine.stages._models import SURELY_BROKEN, LazySession
from tests.stages.running import Bench
from tests.stages.talking import FakeSession, a_pair, a_task, rows_artifact, said


def tasks(folder: Path, num: int) -> Artifact:
    return rows_artifact(folder / "tasks", tasks=[a_task(a_pair(n), n) for n in range(num)])


def test_without_filters_every_task_is_kept(tmp_path: Path) -> None:
    given = tasks(tmp_path, 5)

    found = Bench(tmp_path).run(
        filter_stage.STAGE, {"filters": []}, {"tasks": {"t": given}, "images": {"i": given}}
    )

    assert list(found.records("kept")) == list(given.records("tasks"))
    assert (found.manifest.counts["kept"], found.manifest.counts["dropped"]) == (5, 0)


def test_a_dropped_task_is_kept_beside_with_filter_and_reason(tmp_path: Path) -> None:
    given = tasks(tmp_path, 3)
    bench = Bench(tmp_path)

    found = bench.run(
        filter_stage.STAGE,
        {"filters": [{"use": "caption_length", "min_words": 99}]},
        {"tasks": {"t": given}, "images": {"i": given}},
    )

    rows = list(found.rows("dropped"))
    assert {(row["filter"], row["reason"]) for row in rows} == {
        ("caption_length", "caption too short")
    }
    assert [from_json(row["record"]) for row in rows] == list(given.records("tasks"))
    assert found.manifest.counts["dropped: caption_length: caption too short"] == 3
    assert bench.progress[-1] == (3, 3, "tasks")


@pytest.mark.parametrize("parts", [0, 2])
def test_what_was_kept_before_is_a_duplicate_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    monkeypatch.setattr(_filtering, "SHARD_ROWS", 2)
    pair = a_pair(0)
    kept = [a_task(pair, n) for n in range(3)]
    mended = [a_task(pair, n) for n in (2, 3, 0, 4, 3)]
    inputs = {
        "tasks": {"t": rows_artifact(tmp_path / "mended", tasks=mended)},
        "images": {"i": rows_artifact(tmp_path / "images")},
        "earlier": {"e": rows_artifact(tmp_path / "kept", kept=kept)},
    }
    filters = [{"use": "duplicate_instruction"}, {"use": "refusal"}]
    bench = Bench(tmp_path)
    for number in range(parts):
        part = Part(number, parts)
        bench.run_part(filter_stage.STAGE, {"filters": filters}, inputs, part=part, scratch="s")
    found = bench.run(filter_stage.STAGE, {"filters": filters}, inputs, scratch="s")

    assert [task.instruction for task in found.records("kept")] == ["Question 3?", "Question 4?"]
    assert found.manifest.counts["dropped: duplicate_instruction: same instruction"] == 3


def yes(request: Request) -> Completion:
    return said("Yes")


def judging(session: FakeSession | LazySession, tools: Tools) -> list[_filtering.OpenFilter]:
    """Return the consistency filter, its judge being a session."""
    judge = {"model": "judge"}
    uses = [Use("consistency", 1, {"judge": judge})]
    context = _filtering.filter_context([], {}, tools)
    return _filtering.open_filters(uses, context, lambda use: session)


def ask_all(session: FakeSession | LazySession, tools: Tools, *shards: int) -> list[str | None]:
    """Judge shards of as many tasks, and return the reason to drop each of them."""
    filters = judging(session, tools)
    drops = [
        drop
        for number, size in enumerate(shards)
        for _, drop in _filtering.apply(filters, number, [a_task(a_pair(n)) for n in range(size)])
    ]
    return [drop and drop[1].reason for drop in drops]


def test_a_judge_is_never_asked_the_same_again(tmp_path: Path) -> None:
    session = FakeSession(yes)
    tools = judge_bench(tmp_path).tools("s")

    first = ask_all(session, tools, 2)

    assert first == ask_all(FakeSession(_must_not), tools, 2) == [None, None]
    assert len(session.asked) == 2


def test_a_failed_request_is_no_answer(tmp_path: Path) -> None:
    session = FakeSession(lambda request: said(finish="error", error="too long"))

    assert ask_all(session, judge_bench(tmp_path).tools("s"), 1) == ["judge gave no label"]


def test_a_model_that_answers_nothing_stops_the_stage_and_is_asked_again_by_a_rerun(
    tmp_path: Path,
) -> None:
    tools = judge_bench(tmp_path).tools("s")
    broken = FakeSession(lambda request: said(finish="error", error="out of order"))
    with pytest.raises(StageError, match="out of order"), LazySession(lambda: broken) as session:
        ask_all(session, tools, SURELY_BROKEN)
    mended = FakeSession(yes)
    with LazySession(lambda: mended) as session:
        ask_all(session, tools, SURELY_BROKEN)

    assert len(mended.asked) == SURELY_BROKEN


def test_requests_that_fail_after_a_good_one_are_rows_without_answer(tmp_path: Path) -> None:
    completions = iter([said("Yes"), *[said(finish="error", error="too long")] * SURELY_BROKEN])
    session = FakeSession(lambda request: next(completions))
    with LazySession(lambda: session) as lazy:
        ask_all(lazy, judge_bench(tmp_path).tools("s"), 1, SURELY_BROKEN)

    assert len(session.asked) == 1 + SURELY_BROKEN


def test_a_model_is_loaded_at_the_first_request_and_closed_once(tmp_path: Path) -> None:
    opened: list[FakeSession] = []

    def open_now() -> FakeSession:
        opened.append(FakeSession(yes))
        return opened[-1]

    tools = judge_bench(tmp_path).tools("s")
    with LazySession(open_now) as session:
        assert opened == []
        ask_all(session, tools, 1, 1)
    with LazySession(open_now) as session:
        ask_all(session, tools, 1, 1)

    assert [session.is_closed for session in opened] == [True]


class RefusesAtOnce(FakeSession):
    """Refuses the first requests at once, and answers the others when many more are in hand."""

    is_continuous = True

    def __init__(self, num_refused: int) -> None:
        super().__init__(yes)
        self.num_refused = num_refused

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        in_hand = list(islice(flows, 64))
        for flow in in_hand:
            next(flow)
        for number, flow in enumerate(in_hand):
            reply = Likelihoods((), error="too long")
            if number >= self.num_refused:
                reply = Likelihoods((-0.1, -3.0, -3.0))
            try:
                flow.send(reply)
            except StopIteration as end:
                yield number, end.value


@pytest.mark.parametrize("num_refused", [SURELY_BROKEN, 63])
def test_refusals_that_overtake_the_first_answer_stop_nothing(num_refused: int) -> None:
    with LazySession(lambda: RefusesAtOnce(num_refused), lambda: True) as session:
        done = list(session.run(scored() for _ in range(64)))

    assert [number for number, _ in done] == list(range(64))
    assert [reply.error for _, reply in done] == ["too long"] * num_refused + [None] * (
        64 - num_refused
    )


def test_nothing_is_handed_on_before_it_is_clear_that_the_model_answers() -> None:
    session = LazySession(lambda: RefusesAtOnce(64), lambda: True)
    done = []
    with pytest.raises(StageError, match="too long"):
        done.extend(session.run(scored() for _ in range(64)))

    assert done == []


def scored() -> Flow[Likelihoods]:
    reply: Likelihoods = yield Choices(Request((user("?"),)), (" Yes", " No", " Open"))
    return reply


def judge_bench(folder: Path) -> Bench:
    return Bench(folder, prompts={"consistency@2": "{{ instruction }}"})


def _must_not(request: Request) -> Completion:
    raise AssertionError("asked again")
