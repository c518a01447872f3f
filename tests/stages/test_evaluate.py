from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact, Inputs, Outputs
from engine.backends import Completion, Request
from engine.diagnostics import StageError
from engine.plugin import ModelUse
from engine.stages import evaluate
from engine.stages._benchmark_items import Item, question_from_row
from engine.stages.evaluate import AnswersParams, Asked, expected_items, write_answers
from tests.stages.running import Bench
from tests.stages.talking import (
    FakeSession,
    a_pair,
    a_question,
    a_task,
    answer_row,
    image_bank,
    prompt_texts,
    published,
    rows_artifact,
    said,
)


def params(**changes: Any) -> AnswersParams:
    given: dict[str, Any] = {
        "model": ModelUse(model="m"),
        "benchmark": "cells",
        "prompt": "bare@1",
        "caption_prompt": "caption@1",
        "max_new_tokens": 16,
        "max_items": None,
        "row_set": "rows",
    }
    return AnswersParams(**given | changes)


def items(folder: Path, questions: Sequence[Any], **changes: Any) -> list[Item]:
    artifact = rows_artifact(folder / "items", rows=questions)
    asked = expected_items(Inputs({"items": {"i": artifact}}), params(**changes), prompt_texts())
    return list(asked.items())


def answered(folder: Path, session: FakeSession, asked: Sequence[Item], bank: Any) -> Artifact:
    outputs = Outputs(folder / f"out-{len(list(folder.iterdir()))}")
    outputs.path.mkdir()
    try:
        tools = Bench(folder).tools("s")
        write_answers(
            Asked(lambda: iter(asked), len(asked)), bank, session, params(), outputs, tools
        )
    finally:
        outputs.counts()
    return published(outputs)


def test_every_item_has_a_row_with_what_is_needed_to_score_it_again(tmp_path: Path) -> None:
    bank, (image,) = image_bank(tmp_path / "images", 1)
    question = a_question(
        image, "Which?", "B", "cat", name="row 7", options=["dog", "cat"], answer_type="choice"
    )
    session = FakeSession(lambda request: said("a cat"))

    found = answered(tmp_path, session, items(tmp_path, [question]), bank)

    (row,) = found.rows("answers")
    assert row["prompt_digest"]
    assert {name: value for name, value in row.items() if name != "prompt_digest"} == {
        "id": question.id,
        "source_id": "row 7",
        "question": "Which?",
        "references": ["B", "cat"],
        "options": ["dog", "cat"],
        "answer_type": "choice",
        "cluster": image,
        "images": [image],
        "answer": "a cat",
        "finish": "stop",
        "error": None,
        "num_new_tokens": 1,
    }
    assert session.asked[0].images == (bank.encoded(image),)
    scored = question_from_row(row)
    assert (scored.instruction, scored.references) == ("Which?", ("B", "cat"))


def test_the_template_words_the_question_and_the_image_stays_in_front(tmp_path: Path) -> None:
    question = a_question("i" * 64, "Which?", "B", options=["dog", "cat"])

    (item,) = items(tmp_path, [question], prompt="choice@1")

    assert item.turn.text == "Which?\nA. dog\nB. cat\nAnswer with the letter of the right option."
    assert len(item.turn.parts) == 2
    assert item.question.instruction == "Which?"


def test_items_that_differ_in_options_only_have_ids_of_their_own(tmp_path: Path) -> None:
    first = a_question("i" * 64, "Which?", "B", options=["dog", "cat"])
    second = a_question("i" * 64, "Which?", "B", options=["cow", "pig"])

    assert [i.id for i in items(tmp_path, [first, second])] == [first.id, f"{first.id}-2"]


def test_a_row_may_name_its_cluster(tmp_path: Path) -> None:
    (item,) = items(tmp_path, [a_question("i" * 64, "Which?", "B", cluster="article 3")])

    assert item.cluster == "article 3"


def test_a_smoke_run_takes_the_first_items(tmp_path: Path) -> None:
    questions = [a_question(f"{n:064x}", "Which?", "B", name=f"q{n}") for n in range(5)]

    found = items(tmp_path, questions, max_items=2)

    assert [item.question.meta.source_id for item in found] == ["q0", "q1"]


def test_the_holdout_asks_for_captions_and_tasks(tmp_path: Path) -> None:
    held_out = rows_artifact(tmp_path / "curate", holdout=[a_pair(1), a_pair(2)], pairs=[a_pair(3)])
    kept = rows_artifact(tmp_path / "filter", kept=[a_task(a_pair(2), 2)])
    ports = Inputs({"items": {"i": held_out}, "tasks": {"t": kept}})

    asked = expected_items(ports, params(row_set="holdout"), prompt_texts())
    found = list(asked.items())

    assert [(i.answer_type, i.turn.text, i.question.references) for i in found] == [
        ("caption", "Describe the image.", ("Caption 1.",)),
        ("caption", "Describe the image.", ("Caption 2.",)),
        ("task", "Question 2?", ("result 2",)),
    ]
    assert asked.num_items == 3
    assert found[1].cluster == found[2].cluster == a_pair(2).images[0]


def test_a_benchmark_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="benchmark `cells` has no items"):
        items(tmp_path, [])


def test_a_failed_request_keeps_its_row(tmp_path: Path) -> None:
    bank, images = image_bank(tmp_path / "images", 2)
    asked = items(tmp_path, [a_question(i, "Which?", "B") for i in images])
    answers = iter([said("B"), said(finish="error", error="out of memory")])

    found = answered(tmp_path, FakeSession(lambda request: next(answers)), asked, bank)

    assert [(r["answer"], r["finish"]) for r in found.rows("answers")] == [
        ("B", "stop"),
        ("", "error"),
    ]
    assert found.manifest.counts["errors"] == 1


def test_a_model_that_fails_everywhere_is_no_model_with_zero_points(tmp_path: Path) -> None:
    bank, images = image_bank(tmp_path / "images", 2)
    asked = items(tmp_path, [a_question(i, "Which?", "B") for i in images])
    broken = FakeSession(lambda request: said(finish="error", error="bad weights"))

    with pytest.raises(StageError, match="every request of `cells` failed; the first: bad weights"):
        answered(tmp_path, broken, asked, bank)


def test_a_lost_answer_is_noticed(tmp_path: Path) -> None:
    bank, images = image_bank(tmp_path / "images", 2)
    asked = items(
        tmp_path, [a_question(i, "Which?", "B", name=f"q{n}") for n, i in enumerate(images)]
    )
    answered(tmp_path, FakeSession(lambda request: said("B")), asked[:1], bank)  # fills the journal

    with pytest.raises(
        StageError, match='1 of 2 items of `cells` have no answer, the first is "q1"'
    ):
        answered(tmp_path, FakeSession(lambda request: said("B")), asked, bank)


def scored(
    folder: Path,
    base: Sequence[Mapping[str, Any]],
    adapted: Sequence[Mapping[str, Any]],
    **changes: Any,
) -> Artifact:
    given = {
        "scorer": "strict",
        "scorer_version": 1,
        "metric": "count",
        "metric_by_type": {},
        "options": "question",
        "expected": None,
        "benchmark": "cells",
    }
    inputs = {
        "base": {"base": rows_artifact(folder / "base", answers=base)},
        "adapted": {"adapted": rows_artifact(folder / "adapted", answers=adapted)},
    }
    return Bench(folder).run(evaluate.SCORES, given | changes, inputs)


def test_the_score_row_has_the_fields_of_the_summary(tmp_path: Path) -> None:
    base = [answer_row(f"{n}", "3" if n % 2 else "many") for n in range(20)]
    adapted = [answer_row(f"{n}", "I see 2 and 3. So the answer is 5.") for n in range(20)]

    (row,) = scored(tmp_path, base, adapted).json("scores.json")

    assert row == {
        "benchmark": "cells",
        "answer_type": None,
        "metric": "count",
        "scorer": "strict",
        "base": 0.0,
        "adapted": 100.0,
        "difference": 100.0,
        "ci_low": 100.0,
        "ci_high": 100.0,
        "p": pytest.approx(1 / 10_001),
        "num_items": 20,
        "num_clusters": 20,
        "unparsed_base": 10,
        "unparsed_adapted": 0,
    }


def test_equal_answers_report_no_gain(tmp_path: Path) -> None:
    rows = [answer_row(f"{n}", str(n)) for n in range(10)]

    (row,) = scored(tmp_path, rows, rows).json("scores.json")

    assert (row["difference"], row["ci_low"], row["ci_high"], row["p"]) == (0, 0, 0, 1)


def test_each_answer_type_has_its_metric_and_its_row(tmp_path: Path) -> None:
    base = [
        answer_row("1", "5"),
        answer_row("2", "yes", answer_type="yes_no", references=["no"]),
    ]
    adapted = [
        answer_row("2", "no", answer_type="yes_no", references=["no"]),
        answer_row("1", "five"),
    ]

    found = scored(tmp_path, base, adapted, metric_by_type={"yes_no": "closed"})

    rows = found.json("scores.json")
    assert [(r["answer_type"], r["metric"], r["base"], r["adapted"]) for r in rows] == [
        (None, "mixed", 50.0, 100.0),
        ("count", "count", 100.0, 100.0),
        ("yes_no", "closed", 0.0, 100.0),
    ]
    assert [(r["id"], r["base_parsed"], r["adapted_parsed"]) for r in found.rows("items")] == [
        ("1", "5", "5"),
        ("2", "yes", "no"),
    ]


def test_answer_lengths_are_told_beside_the_score(tmp_path: Path) -> None:
    base, adapted = [answer_row("1", "5")], [answer_row("1", "I see five of them")]

    found = scored(tmp_path, base, adapted)

    assert found.json("companions.json") == [
        {"answer_type": "count", "name": "num_words", "base": 1.0, "adapted": 5.0}
    ]


@pytest.mark.parametrize(
    ("base", "adapted", "changes", "reason"),
    [
        (["1", "2"], ["1"], {}, "1 items were answered by one of the two models only"),
        (["1"], ["1"], {"metric": "cuont"}, "scorer `strict` has no metric `cuont`"),
    ],
)
def test_scores_of_unequal_things_are_refused(
    tmp_path: Path, base: list[str], adapted: list[str], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(StageError, match=reason):
        scored(
            tmp_path,
            [answer_row(i, "5") for i in base],
            [answer_row(i, "5") for i in adapted],
            **changes,
        )


def test_models_that_were_asked_in_different_words_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(StageError, match='asked item "1" in different words'):
        scored(tmp_path, [answer_row("1", "5")], [answer_row("1", "5", prompt_digest="other")])


def never(request: Request) -> Completion:
    raise AssertionError("asked again")


def test_a_finished_journal_needs_no_model(tmp_path: Path) -> None:
    bank, images = image_bank(tmp_path / "images", 3)
    asked = items(tmp_path, [a_question(i, "Which?", "B") for i in images])
    first = answered(tmp_path, FakeSession(lambda request: said("B")), asked, bank)

    again = answered(tmp_path, FakeSession(never), asked, bank)

    assert list(first.rows("answers")) == list(again.rows("answers"))
