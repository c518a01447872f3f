from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import package_data, plugin, prompts
from engine.artifacts import Artifact, Inputs
from engine.backends import Completion, Request
from engine.records import Record, to_json
from engine.stages import mix, repair
from tests.filters.building import artifact
from tests.forecast.planning import plan_of
from tests.sources.building import picture
from tests.stages.running import Bench
from tests.stages.talking import (
    FakeSession,
    a_pair,
    a_task,
    prompt_texts,
    rows_artifact,
    said,
)

FILTERS = ["consistency", "needs_image", "needs_image/2"]
PARAMS = {
    "generator": {"model": "m"},
    "prompt": "synthesize@1",
    "max_new_tokens": 32,
    "filters": FILTERS,
}
ORDER = PARAMS | {"prompt": "repair@1"}
NO = {"label": "no", "score": 0.1, "log_probs": [-2.0, -0.2, -3.0]}


def turned_down(pair: Record, number: int, note: Mapping[str, Any] | None) -> dict[str, Any]:
    task = a_task(pair, number)
    extra = {"caption": pair.caption, "needs_image": {"weight": 0.25}}
    extra |= {"needs_image/2": {"weight": 0.5}, "needs_image/3": {"weight": 0.75}}
    extra |= {} if note is None else {"consistency": dict(note)}
    task = replace(task, meta=replace(task.meta, extra=extra))
    reason = "too long" if note is None else f"judge says {note['label']}"
    by = "task_length" if note is None else "consistency"
    return {"record": to_json(task), "filter": by, "reason": reason, "detail": ""}


@pytest.fixture
def mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what repairs a list of notes, by a session's rule."""

    def run(rule, *notes, params=PARAMS) -> tuple[Artifact, FakeSession]:
        pairs = artifact(
            tmp_path / "pairs", [(f"p{n}", picture(n), "x") for n in range(len(notes))]
        )
        shown = [a_pair(n, p.images[0]) for n, p in enumerate(pairs.records("rows"))]
        rows = [
            turned_down(pair, n, note)
            for n, (pair, note) in enumerate(zip(shown, notes, strict=True))
        ]
        given = rows_artifact(tmp_path / "given", dropped=rows)
        session = FakeSession(rule)
        monkeypatch.setattr(repair, "lazy_session", lambda *_: _Open(session))
        text = (package_data.folder("prompt_templates") / "repair/v1.j2").read_text("utf-8")
        bench = Bench(tmp_path, prompts={**prompt_texts(), "repair@1": text})
        inputs = {"tasks": {"t": given}, "images": {"i": pairs}}
        return bench.run(repair.STAGE, params, inputs), session

    return run


class _Open:
    def __init__(self, session: FakeSession) -> None:
        self.session = session

    def __enter__(self) -> FakeSession:
        return self.session

    def __exit__(self, *_: object) -> None:
        self.session.close()


def test_a_synthesizer_gives_its_precise_answer_again_with_the_informative_one_in_sight(mended):
    found, session = mended(lambda request: said("mended"), NO)

    (request,) = session.asked
    assert [turn.text for turn in request.turns] == [
        "Describe the image.",
        "Caption 0.",
        "Answer with an informative response.\nQuestion 0?",
        "Reasoning 0.",
        "Answer with a precise response.\nQuestion 0?",
    ]
    assert (request.opens, len(request.images)) == ("assistant", 1)
    (task,) = found.records("tasks")
    assert (task.answer("informative"), task.answer("precise")) == ("Reasoning 0.", "mended")


def test_an_untuned_model_is_told_the_remark_and_rewrites_both_answers(mended):
    answer = json.dumps({"informative": "New reasoning.", "precise": "new"})
    note = NO | {"remark": "Three is not four."}
    found, session = mended(lambda request: said(answer), note, params=ORDER)

    (request,) = session.asked
    assert "<remark>\nThree is not four.\n</remark>" in request.turns[0].text
    (task,) = found.records("tasks")
    assert (task.answer("informative"), task.answer("precise")) == ("New reasoning.", "new")


def test_a_mended_task_keeps_its_pair_and_tells_its_history(mended):
    found, _ = mended(lambda request: said("mended"), NO)

    (task,) = found.records("tasks")
    assert task.meta.lineage[0] == a_pair(0, task.images[0]).id
    assert "consistency" not in task.meta.extra
    history = task.meta.extra["mended"]
    assert (history["by"], history["reason"], history["precise"]) == (
        "consistency",
        "judge says no",
        "result 0",
    )


def test_what_any_filter_noted_of_the_old_answers_is_dropped(mended):
    found, _ = mended(lambda request: said("mended"), NO)

    (task,) = found.records("tasks")
    assert task.meta.extra.keys() == {"caption", "mended", "needs_image/3"}  # a filter of pairs
    assert mix.weight_of(task) == 0.75


def test_a_mended_task_tells_how_the_repair_was_asked(mended):
    found, _ = mended(lambda request: said("mended"), NO)

    (task,) = found.records("tasks")
    asked = prompts.digest(prompt_texts()["synthesize@1"])
    assert task.meta.extra["mended"]["prompt"] == asked


def test_open_questions_failures_and_broken_rules_are_not_mended(mended):
    found, session = mended(
        lambda request: said("mended"), NO | {"label": "open"}, None, NO | {"label": "yes"}
    )

    assert [task.meta.source_id for task in found.records("tasks")] == ["p2"]
    assert len(session.asked) == 1


@pytest.mark.parametrize(
    ("answer", "params", "reason"),
    [
        (said("result 0"), PARAMS, "the mended answer is the old one"),
        (said(" "), PARAMS, "an instruction or answer is empty"),
        (said(finish="length"), PARAMS, "the output was cut at max_new_tokens"),
        (said(finish="error", error="no memory"), PARAMS, "the request failed"),
        (said("no JSON"), ORDER, "not the JSON that was asked for"),
        (said('{"informative": "x"}'), ORDER, "not the JSON that was asked for"),
        (
            said(r'{"informative": "x", "precise": "\ud83d"}'),
            ORDER,
            "not the JSON that was asked for",
        ),
        (said("half a smile \ud83d"), ORDER, "not the JSON that was asked for"),
        (said("half a smile \ud83d"), PARAMS, "an instruction or answer is not Unicode"),
        (said(finish="error", error="no \ud83d"), PARAMS, "the request failed"),
    ],
)
def test_what_cannot_be_mended_goes_to_the_ledger(
    mended, answer: Completion, params: dict[str, Any], reason: str
):
    def rule(request: Request) -> Completion:
        is_first = "Question 0?" in request.turns[-1].text
        good = said("mended") if params is PARAMS else said('{"informative": "x", "precise": "y"}')
        return answer if is_first else good

    found, _ = mended(rule, NO, NO, params=params)

    assert [(r["source_id"], r["reason"]) for r in found.rows("quarantine")] == [("p0", reason)]
    assert [task.meta.source_id for task in found.records("tasks")] == ["p1"]


def test_mended_tasks_enter_the_mix(tmp_path: Path):
    pairs = [a_pair(number) for number in range(2)]
    inputs = {
        "pairs": {"p": rows_artifact(tmp_path / "pairs", pairs=pairs)},
        "tasks": {"t": rows_artifact(tmp_path / "tasks", kept=[a_task(pairs[0], 0)])},
        "repaired": {"r": rows_artifact(tmp_path / "repaired", kept=[a_task(pairs[1], 1)])},
    }

    assert [task.instruction for task in mix._kept(Inputs(inputs))] == [
        "Question 0?",
        "Question 1?",
    ]


def test_the_pipeline_joins_repair_to_the_filters_of_tasks():
    judge = "{use: consistency, judge: {model: pocket/judge}}"
    plan = plan_of(
        "quickstart",
        "generator.repair_prompt=synthesize@1",
        f"filters.tasks=[{judge}, {{use: refusal}}, {judge}]",
    )

    assert list(plan.node("repair").params["filters"]) == [
        "consistency",
        "refusal",
        "consistency/2",
    ]


def test_the_params_of_the_stage_are_those_of_the_recipe():
    assert plugin.bind(repair.Params, PARAMS).generator.model == "m"
