from __future__ import annotations

import pytest

from engine import package_data, prompts
from engine.wording import conclusion, normal, numbers
from tests.scorers.asking import score


def combined(informative: str, precise: str, variant: int) -> str:
    folder = package_data.folder("prompt_templates")
    template = (folder / "combine" / "v1.j2").read_text(encoding="utf-8")
    return prompts.render(template, informative=informative, precise=precise, variant=variant)


@pytest.mark.parametrize("variant", range(8))
@pytest.mark.parametrize(
    ("metric", "informative", "precise"),
    [
        ("count", "There are 3 red cells and 2 blue ones.", "5"),
        ("closed", "The field holds no cells with a nucleus, so all are mature.", "Yes"),
        ("closed", "Yes, one might think so at first. The border is smooth.", "No."),
        ("exact", "Round cells with a dark nucleus fill the field", "lymphocyte"),
        ("open", "Round cells with a dark nucleus fill the field.", "small lymphocytes"),
        ("choice", "It is not the CT and not the PET look.", "MRI"),
    ],
)
def test_reasoning_with_a_conclusion_scores_like_the_bare_answer(
    metric: str, informative: str, precise: str, variant: int
) -> None:
    options = ("MRI", "CT", "PET") if metric == "choice" else ()
    reasoned = score(
        "strict", metric, combined(informative, precise, variant), precise, options=options
    )
    bare = score("strict", metric, precise, precise, options=options)

    assert bare.value == reasoned.value == 1.0
    assert bare.parsed == reasoned.parsed


@pytest.mark.parametrize("variant", range(5))
def test_a_conclusion_that_is_a_sentence_is_found(variant: int) -> None:
    answer = combined("There are dark spots.", "The leaves are ill because of a fungus", variant)

    assert conclusion(answer) == "The leaves are ill because of a fungus."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("5", "5"),
        ("There are many cells.", "There are many cells."),
        ("The answer is 5. I am sure of it.", "5."),
        ("Answer: **B**", "B"),
        ("It is round, thus it is a coccus.", "it is a coccus."),
        ("<think>Answer: no</think>yes", "yes"),
        ("It is so small.", "It is so small."),
        ("The final answer is", "The final answer is"),
        ("Is it large? The answer is no. Therefore, the answer is small.", "small."),
    ],
)
def test_the_conclusion_follows_the_last_marker(answer: str, expected: str) -> None:
    assert expected == conclusion(answer)


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("Yes, there is no fracture on the left.", "yes"),
        ("There is no fracture.", "no"),
        ("I see no cells here. Yes.", "yes"),
        ("Yes. No.", None),
        ("yes and no", None),
        ("yes/no", None),
        ("Yes, so it is malignant", "yes"),
        ("It may be.", None),
        ("", None),
        ("nothing", None),
    ],
)
def test_the_verdict_is_a_word_of_its_own(answer: str, parsed: str | None) -> None:
    assert parsed == score("strict", "closed", answer, "yes").parsed


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("left lung", "left", 0.0),
        ("It is the left", "Left", 1.0),
        ("The answer is left.", "left", 1.0),
    ],
)
def test_a_closed_question_may_want_another_word(answer: str, gold: str, value: float) -> None:
    assert value == score("strict", "closed", answer, gold).value


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ("B", "ct scan"),
        ("b)", "ct scan"),
        ("(b) CT scan", "ct scan"),
        ("B: CT scan, since MRI would be darker", "ct scan"),
        ("The image is a CT scan.", "ct scan"),
        ("a CT", None),
        ("A or B", None),
        ("Option A. Or option B.", None),
        ("MRI or CT scan", None),
        ("MRI. So the answer is B.", "ct scan"),
        ("E", None),
        ("", None),
    ],
)
def test_an_option_is_named_by_letter_or_text(answer: str, parsed: str | None) -> None:
    options = ("A: MRI", "B: CT scan", "C: X-ray")

    assert parsed == score("strict", "choice", answer, "B", options=options).parsed


@pytest.mark.parametrize("gold", ["B", "CT scan", "B: CT scan", "(B) CT scan"])
def test_the_reference_of_a_choice_may_be_letter_or_text(gold: str) -> None:
    options = ("MRI", "CT scan")

    assert score("strict", "choice", "ct scan", gold, options=options).value == 1.0
    assert score("strict", "choice", "B", gold, options=options).value == 1.0
    assert score("strict", "choice", "A", gold, options=options).value == 0.0


def test_a_longer_option_takes_its_words_first() -> None:
    options = ("cell", "red cell")

    assert score("strict", "choice", "a red cell", "red cell", options=options).value == 1.0


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ("5", "5"),
        ("Five", "5"),
        ("There are five cells, 5 in all.", "5"),
        ("twenty-three", "23"),
        ("none", "0"),
        ("There are no cells.", "0"),
        ("1,200", "1200"),
        ("3 red and 2 blue", None),
        ("There are 3 red and 2 blue, so there are 5.", "5"),
        ("many", None),
    ],
)
def test_a_count_is_the_only_number(answer: str, parsed: str | None) -> None:
    assert parsed == score("strict", "count", answer, "5").parsed


def test_a_count_in_words_equals_its_digits() -> None:
    assert score("strict", "count", "12", "twelve").value == 1.0
    assert numbers("one hundred and 2.5") == [100.0, 2.5]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("one hundred", 100),
        ("a hundred and five", 105),
        ("two thousand three hundred twenty-one", 2321),
        ("5 thousand", 5000),
        ("2.5 million", 2_500_000),
        ("two hundred thousand", 200_000),
        ("-5", -5),
        ("minus three", -3),
        ("(-0.5)", -0.5),
    ],
)
def test_numbers_are_read_whole(text: str, value: float) -> None:
    assert numbers(text) == [value]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3-5", [3, 5]),
        ("ten five", [10, 5]),
        ("T2-5", [5]),
        ("hundreds", []),
        ("one and two", [1, 2]),
    ],
)
def test_what_is_not_one_number_stays_apart(text: str, expected: list[float]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize(("answer", "gold"), [("<5", ">5"), ("-5", "5"), ("\u2264 5 mm", "5 mm")])
def test_signs_tell_answers_apart(answer: str, gold: str) -> None:
    assert score("strict", "exact", answer, gold).value == 0.0
    assert score("strict", "exact", answer, answer).value == 1.0


@pytest.mark.parametrize(
    "precise",
    [
        "E. coli",
        "approx. 5 mm",
        "St. Louis",
        "Staph. aureus",
        "lesions of Dr. Smith",
        "vs. controls",
    ],
)
def test_a_shortened_word_ends_no_sentence(precise: str) -> None:
    answer = f"The colonies are pink. So the answer is {precise}. This is common."

    assert conclusion(answer) == f"{precise}."
    assert score("strict", "open", answer, precise).value == 1.0


@pytest.mark.parametrize("precise", ["B", "no", "MR", "MS", "Paris", "5"])
def test_an_answer_before_a_new_sentence_ends_there(precise: str) -> None:
    assert conclusion(f"The answer is {precise}. The border is smooth.") == f"{precise}."


@pytest.mark.parametrize(
    ("options", "answer", "value"),
    [
        (("A", "B"), "A", 1.0),
        (("A", "B"), "a)", 1.0),
        (("A", "B"), "Option A", 1.0),
        (("A", "B"), "B", 0.0),
        (("B", "A"), "A", 1.0),
    ],
)
def test_options_that_are_only_letters_can_be_chosen(
    options: tuple[str, ...], answer: str, value: float
) -> None:
    assert score("strict", "choice", answer, "A", options=options).value == value


@pytest.mark.parametrize(
    ("metric", "answer", "gold"),
    [
        ("closed", "There is no fracture line. So the answer is unknown.", "no"),
        ("count", "I see 5 cells. The answer is unclear.", "5"),
        ("exact", "unknown. Answer: cannot be told", "unknown. Answer: x"),
    ],
)
def test_an_explicit_answer_is_not_replaced_by_the_reasoning(
    metric: str, answer: str, gold: str
) -> None:
    assert score("strict", metric, answer, gold).value == 0.0


@pytest.mark.parametrize("mark", ["-", "*", "\u2022", "1."])
def test_a_bulleted_list_is_read_whole(mark: str) -> None:
    answer = f"I see food. The answer is:\n{mark} egg\n{mark} rice\n\nEnjoy."
    found = score("strict", "multi_label", answer, "egg", "rice")

    assert (found.value, found.parsed) == (1.0, "egg; rice")


def test_the_nearest_reference_counts() -> None:
    found = score("strict", "open", "It is a red apple.", "fruit", "red apple")

    assert found.value == 1.0
    assert found.extra == {"recall": 1.0, "exact": 1.0}


def test_a_list_without_options_is_cut_at_its_commas() -> None:
    found = score("strict", "multi_label", "['egg', 'rice and bread']", "egg", "rice", "milk")

    assert found.parsed == "bread; egg; rice"
    assert found.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["open", "exact", "closed", "choice", "count", "rouge_l"])
@pytest.mark.parametrize("answer", ["", "  ", "...", "\n"])
def test_silence_is_unparsed_and_scores_nothing(metric: str, answer: str) -> None:
    for gold in ("5", "no", "left"):
        found = score("strict", metric, answer, gold)

        assert (found.value, found.parsed) == (0.0, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The X-Ray.", "x ray"),
        ("don't", "dont"),
        ("0.5 mm, approx.", "0.5 mm approx"),
        ("\u00c4rztin, caf\u00e9", "\u00e4rztin caf\u00e9"),
        ("twenty three of a hundred", "23 of 100"),
    ],
)
def test_the_normal_form(text: str, expected: str) -> None:
    assert expected == normal(text)
