from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine import package_data, prompts
from engine.filters import Ask, FilterContext, TextModel, Verdict
from engine.filters.consistency import PLUGIN, Params, reason_to_drop
from engine.images import ImageBank
from engine.plugin import ModelUse
from tests.filters.building import kept_nowhere, verdicts_of
from tests.stages.talking import a_pair, a_task

PROMPT = "{{ instruction }} / {{ informative }} / {{ precise }}"


def judged(
    answers: Sequence[str | None], folder: Path, **settings: object
) -> tuple[list[Verdict | None], list[str], list[Ask]]:
    """Return the verdicts on as many tasks as there are answers, what was asked, and how."""
    texts_seen: list[str] = []
    asks: list[Ask] = []

    def open_model(use: ModelUse) -> TextModel:
        def model(texts: Sequence[str], ask: Ask) -> Sequence[str | None]:
            texts_seen.extend(texts)
            asks.append(ask)
            return answers

        return model

    context = FilterContext(ImageBank([folder]), {}, open_model, {"p@1": PROMPT}, kept_nowhere, 0)
    params = Params(judge=ModelUse(model="j"), prompt="p@1", **settings)  # type: ignore[arg-type]
    tasks = [a_task(a_pair(n), n) for n in range(len(answers))]
    return verdicts_of(PLUGIN, params, context, tasks), texts_seen, asks


def test_the_judge_reads_instruction_and_both_answers_only(tmp_path: Path) -> None:
    verdicts, texts, asks = judged(["Yes", "No"], tmp_path)

    assert texts == [
        "Question 0? / Reasoning 0. / result 0",
        "Question 1? / Reasoning 1. / result 1",
    ]
    assert verdicts == [None, Verdict("judge says no")]
    assert asks == [Ask(max_new_tokens=4, is_raw=True)]


def test_an_instruct_judge_is_asked_in_a_chat_turn(tmp_path: Path) -> None:
    _, _, (ask,) = judged(["Yes"], tmp_path, as_chat=True, max_new_tokens=2)

    assert ask == Ask(max_new_tokens=2, is_raw=False)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (" Yes", None),
        ("yes.", None),
        ("YES\n\nQuestion:", None),
        ("**Yes**", None),
        ("No", Verdict("judge says no")),
        ("Open\n", Verdict("judge says open")),
        ("Yesterday", Verdict("judge gave no label", "Yesterday")),
        ("I say yes", Verdict("judge gave no label", "I say yes")),
        ("", Verdict("judge gave no label", "")),
        (None, Verdict("judge gave no label", "the request failed")),
    ],
)
def test_the_first_word_is_the_label(written: str | None, expected: Verdict | None) -> None:
    assert expected == reason_to_drop(written)


def test_the_templates_of_both_judges_end_where_the_label_begins() -> None:
    for name in ("consistency", "consistency_pocket"):
        text = (package_data.folder("prompt_templates") / name / "v1.j2").read_text("utf-8")
        asked = prompts.render(text, instruction="I?", informative="Long.", precise="short")
        assert asked.endswith("Precise answer: short\nConsistent:")
