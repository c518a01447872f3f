from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.artifacts import Artifact
from engine.backends import Completion, Request
from engine.diagnostics import StageError
from engine.filters import Ask
from engine.plan.stage import Tools
from engine.plugin import ModelUse
from engine.records import from_json
from engine.stages import filter as filter_stage
from engine.stages._models import SURELY_BROKEN, LazySession, text_model
from tests.stages.running import Bench
from tests.stages.talking import FakeSession, a_pair, a_task, rows_artifact, said

JUDGE = ModelUse(model="judge")
ASK = Ask(max_new_tokens=4, is_raw=True)


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


def yes(request: Request) -> Completion:
    return said("Yes")


def test_a_judge_is_never_asked_the_same_texts_twice(tmp_path: Path) -> None:
    session = FakeSession(yes)
    bench = Bench(tmp_path)

    first = text_model(JUDGE, session, bench.tools("s"))(["a", "b"], ASK)
    again = text_model(JUDGE, FakeSession(_must_not), bench.tools("s"))(["a", "b"], ASK)

    assert first == again == ["Yes", "Yes"]
    assert len(session.asked) == 2
    assert bench.progress == []


def test_another_judge_is_asked_for_itself(tmp_path: Path) -> None:
    tools = Bench(tmp_path).tools("s")
    other = FakeSession(lambda request: said("No"))

    text_model(JUDGE, FakeSession(yes), tools)(["a"], ASK)

    assert text_model(ModelUse(model="other"), other, tools)(["a"], ASK) == ["No"]


def test_a_failed_request_is_no_answer(tmp_path: Path) -> None:
    session = FakeSession(lambda request: said(finish="error", error="too long"))

    assert text_model(JUDGE, session, Bench(tmp_path).tools("s"))(["a"], ASK) == [None]


def test_a_model_that_answers_nothing_stops_the_stage_and_is_asked_again_by_a_rerun(
    tmp_path: Path,
) -> None:
    tools = Bench(tmp_path).tools("s")
    texts = [str(number) for number in range(SURELY_BROKEN)]
    broken = FakeSession(lambda request: said(finish="error", error="out of order"))
    with pytest.raises(StageError, match="out of order"), LazySession(lambda: broken) as session:
        ask_all(session, tools, texts)
    mended = FakeSession(yes)
    with LazySession(lambda: mended) as session:
        ask_all(session, tools, texts)

    assert len(mended.asked) == SURELY_BROKEN


def test_requests_that_fail_after_a_good_one_are_rows_without_answer(tmp_path: Path) -> None:
    completions = iter([said("Yes"), *[said(finish="error", error="too long")] * SURELY_BROKEN])
    session = FakeSession(lambda request: next(completions))
    with LazySession(lambda: session) as lazy:
        ask_all(lazy, Bench(tmp_path).tools("s"), ["a"], ["b"] * SURELY_BROKEN)

    assert len(session.asked) == 1 + SURELY_BROKEN


def test_a_model_is_loaded_at_the_first_request_and_closed_once(tmp_path: Path) -> None:
    opened: list[FakeSession] = []

    def open_now() -> FakeSession:
        opened.append(FakeSession(yes))
        return opened[-1]

    tools = Bench(tmp_path).tools("s")
    with LazySession(open_now) as session:
        assert opened == []
        ask_all(session, tools, ["a"], ["b"])
    with LazySession(open_now) as session:
        ask_all(session, tools, ["a"], ["b"])

    assert [session.is_closed for session in opened] == [True]


def ask_all(session: LazySession, tools: Tools, *batches: Sequence[str]) -> None:
    for batch in batches:
        text_model(JUDGE, session, tools)(batch, ASK)


def _must_not(request: Request) -> Completion:
    raise AssertionError("asked again")
