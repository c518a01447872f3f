"""The measured rows of BENCHMARKS 1.3: what published evaluators say, and what is right."""

from __future__ import annotations

import pytest

from tests.scorers.asking import score

RANDOM, UNPARSED = "random", None
MODALITIES = ("MRI", "CT", "X-ray", "PET")


@pytest.mark.parametrize(
    ("answer", "gold", "paper", "true_recall"),
    [
        ("lung lung lung lung", "lung heart", 0.80, 0.50),
        ("left", "left lung", 0.50, 0.50),
        ("X-Ray", "xray", 0.00, 0.00),
        ("liver " + "and every other organ of the body " * 40, "liver", 1.00, 1.00),
        ("right right right", "right lung", 0.75, 0.50),
    ],
)
def test_repeating_a_right_word_raises_published_recall_only(
    answer: str, gold: str, paper: float, true_recall: float
) -> None:
    assert paper == pytest.approx(score("paper", "open", answer, gold).value)
    assert true_recall == pytest.approx(score("strict", "open", answer, gold).extra["recall"])


def test_an_essay_has_full_recall_but_a_low_f1() -> None:
    essay = "liver " + "and every other organ of the body " * 40

    assert score("strict", "open", essay, "liver").value < 0.02


@pytest.mark.parametrize(
    ("answer", "gold", "paper", "strict", "parsed"),
    [
        ("Normal chest", "no", 1.0, 0.0, UNPARSED),
        ("Yes, no doubt", "no", 1.0, 0.0, "yes"),
        ("left", "left", 0.0, 1.0, "left"),
        ("yes no", "no", 1.0, 0.0, "both"),
        ("yes no", "yes", 1.0, 0.0, "both"),
        ("I do not know", "no", 1.0, 0.0, UNPARSED),
    ],
)
def test_letters_of_a_longer_word_are_no_verdict(
    answer: str, gold: str, paper: float, strict: float, parsed: str | None
) -> None:
    assert paper == score("paper", "closed", answer, gold).value
    found = score("strict", "closed", answer, gold)
    assert strict == found.value
    assert found.parsed == (None if parsed == "both" else parsed)


@pytest.mark.parametrize(
    ("answer", "paper", "strict"),
    [
        ("The answer is **D**", RANDOM, "pet"),
        ("The answer is\nB", RANDOM, "ct"),
        ("mri", RANDOM, "mri"),
        ("I think option C, not A", "A", "x ray"),
        ("A CT image", "A", "ct"),
        ("The picture is dark", "B", UNPARSED),  # "ct" stands in "picture"
        ("It is blurred", RANDOM, UNPARSED),
        ("(B)", "B", "ct"),
        ("B. CT", RANDOM, "ct"),
        ("B. MRI", "A", UNPARSED),
    ],
)
def test_common_chat_styles_are_read_and_nothing_is_drawn(
    answer: str, paper: str, strict: str | None
) -> None:
    published = score("paper", "choice", answer, "B", options=MODALITIES)
    assert (paper == RANDOM) == bool(published.extra["guessed"])
    assert paper in (RANDOM, published.parsed)
    assert strict == score("strict", "choice", answer, "B", options=MODALITIES).parsed


def test_a_number_in_the_answer_wins_over_the_published_class_name() -> None:
    classes = [f"dish {name}" for name in ("pie", "soup", *(f"x{i}" for i in range(99)))]
    answer = "There are 1 or more plates of dish pie"

    assert score("paper", "choice", answer, "dish pie", options=classes).parsed == "1"
    assert score("strict", "choice", answer, "dish pie", options=classes).value == 1.0


def test_licorice_is_no_rice() -> None:
    options = ("rice", "licorice candy", "egg")

    assert score("paper", "multi_label", "licorice", "rice", options=options).value == 1.0
    assert score("strict", "multi_label", "licorice", "rice", options=options).parsed is None


def test_naming_every_class_pays_in_recall_only() -> None:
    options = ("rice", "egg", "bread", "milk")
    answer = ", ".join(options)

    published = score("paper", "ingredients", answer, "egg", options=options)
    assert published.value == 1.0
    assert score("strict", "multi_label", answer, "egg", options=options).value == 0.4


def test_repetition_lowers_our_rouge() -> None:
    found = score("strict", "rouge_l", "a b a b a b c", "a b c")

    assert found.value == pytest.approx(0.60)


def test_repetition_is_free_in_the_published_rouge() -> None:
    pytest.importorskip("rouge", reason="the package `rouge` is an extra")

    assert score("paper", "rouge_l", "a b a b a b c", "a b c").value == pytest.approx(1.0)
    assert score("paper", "rouge_l", ".", "a b c").value == 0.0
    assert score("paper", "rouge_l", "", "a b c").value == 0.0
