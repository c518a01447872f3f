from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import plugin
from engine.filters import Decision, FilterContext, Verdict
from engine.images import ImageBank
from engine.records import ImagePart, Kind, Meta, Record, assistant, make_record, user
from engine.wording import normal
from tests.filters.building import kept_nowhere, verdicts_of


def task(
    instruction: str,
    informative: str = "The shape on the left has three corners.",
    precise: str = "A triangle",
    pair: str = "p",
    **extra: Any,
) -> Record:
    turns = (
        user(ImagePart(0), instruction),
        assistant(informative, style="informative"),
        assistant(precise, style="precise"),
    )
    meta = Meta(Kind.TASK, f"row/{pair}", lineage=(pair,), extra=extra)
    return make_record(("i" * 64,), turns, meta)


def decided(name: str, folder: Path, *tasks: Record, **settings: Any) -> list[Decision]:
    plug = plugin.load("filters", name)
    context = FilterContext(ImageBank([folder]), {}, {}, kept_nowhere, 0)
    return verdicts_of(plug, plugin.bind(plug.params, settings), context, tasks)


def reasons(name: str, folder: Path, *tasks: Record, **settings: Any) -> list[str | None]:
    found = decided(name, folder, *tasks, **settings)
    return [one.reason if isinstance(one, Verdict) else None for one in found]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (task("Which shape is on the left?"), None),
        (task("Shape?"), "instruction too short"),
        (task("why " * 101), "instruction too long"),
        (task("Which shape is it?", "Three corners", "A"), "informative too short"),
        (task("Which shape is it?", "It is so. " * 150), "informative too long"),
        (task("Which shape is it?", precise="..."), "precise too short"),
        (task("Which shape is it?", "It is " * 40, "a b " * 31), "precise too long"),
        (task("Which shape is it?", "It is one.", "A b c d"), "precise longer than informative"),
        (
            task(
                "\u8fd9\u662f\u4ec0\u4e48\u5f62\u72b6",
                "\u8fd9\u662f\u4e09\u89d2\u5f62\u7684",
                "\u4e09\u89d2",
            ),
            None,
        ),
    ],
)
def test_lengths_are_those_of_a_task(tmp_path: Path, one: Record, reason: str | None):
    assert reasons("task_length", tmp_path, one) == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot see the image.",
        "I am unable to determine that.",
        "Sorry, no.",
        "I can't tell from here.",
        "Unfortunately the resolution is low.",
        "As an AI language model, I have no eyes.",
        "It is red. As an AI I may be wrong.",
        "Please provide the image first.",
        "There is no image.",
    ],
)
def test_a_refusal_is_dropped_with_its_words(tmp_path: Path, text: str):
    (found,) = decided("refusal", tmp_path, task("What is it?", text))

    assert isinstance(found, Verdict)
    assert found.reason == "informative answer refuses"
    assert found.detail.lower() in text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "The sign reads 'I cannot swim', so a child is not a swimmer.",
        "The man looks sorry for what he did.",
        "An airport (AI: Air India) with two planes.",
        "The cells cannot be told apart by colour, so shape decides.",
        "The person apologizes with folded hands.",
    ],
)
def test_a_text_about_refusing_is_no_refusal(tmp_path: Path, text: str):
    assert reasons("refusal", tmp_path, task("What is it?", text)) == [None]


@pytest.mark.parametrize(
    ("question", "answer", "is_dropped"),
    [
        ("What colour is the red car?", "Red.", True),
        ("How many wheels do the two bicycles have?", "two", True),
        ("How many wheels do the 2 bicycles have?", "Two", True),
        ("Is the car red or green?", "Red", False),
        ("Is it there? Answer yes or no.", "Yes", False),
        ("Which of these is it? A. cat B. dog", "dog", False),
        ("What colour is the car?", "Red", False),
        ("What is the redder car?", "red", False),
        ("Is no car there?", "No", False),
    ],
)
def test_a_question_must_not_hold_its_answer(
    tmp_path: Path, question: str, answer: str, is_dropped: bool
):
    found = reasons("answer_in_question", tmp_path, task(question, precise=answer))

    assert (found[0] is not None) is is_dropped


def test_longer_answers_alone_may_be_looked_for(tmp_path: Path):
    one, two = (
        task("Is the red car fast?", precise="red"),
        task("Is a red car fast?", precise="red car"),
    )

    assert reasons("answer_in_question", tmp_path, one, two, min_words=2) == [
        None,
        "answer stands in the question",
    ]


LONG = "Which kind of tall building stands behind the old stone bridge on the left side"


def test_the_same_instruction_of_a_pair_is_dropped_the_second_time(tmp_path: Path):
    tasks = [task("What is it?"), task("what is it"), task("What is it?", pair="q")]

    assert reasons("duplicate_instruction", tmp_path, *tasks) == [None, "same instruction", None]
    assert reasons("duplicate_instruction", tmp_path, *tasks, scope="all") == [
        None,
        "same instruction",
        "same instruction",
    ]


def test_nearly_the_same_instruction_is_dropped_as_well(tmp_path: Path):
    tasks = [task(f"{LONG} of the river?"), task(f"{LONG} of the wide river?")]

    assert reasons("duplicate_instruction", tmp_path, *tasks, max_similarity=0.6) == [
        None,
        "similar instruction",
    ]
    assert reasons("duplicate_instruction", tmp_path, *tasks, max_similarity=0.95) == [None, None]


def test_another_number_or_colour_is_another_question(tmp_path: Path):
    tasks = [task(f"{LONG} of {word} river?") for word in ("the 2nd", "the 3rd", "red", "blue")]

    assert reasons("duplicate_instruction", tmp_path, *tasks, max_similarity=0.5) == [None] * 4


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_bands_find_nearly_all_pairs_above_the_threshold(similarity: float):
    from engine.filters.duplicate_instruction import NUM_HASHES, _band_rows

    rows = _band_rows(similarity)

    assert 1 - (1 - similarity**rows) ** (NUM_HASHES // rows) > 0.95


def _by_the_book(tasks: list[Record], scope: str, similarity: float) -> list[Decision]:
    """Decide about instructions with all that was asked held in plain dicts."""
    from engine.filters import duplicate_instruction as rule

    seen: dict[tuple[str, ...], str] = {}
    bands: dict[tuple[object, ...], list[tuple[list[int], str]]] = {}

    def decide(one: Record) -> Verdict | None:
        of = one.meta.lineage[0] if scope == "pair" else ""
        words, hashes = normal(one.instruction), rule._hashes(one)
        if (of, words) in seen:
            return Verdict("same instruction", f"of {seen[of, words]}")
        keys = [*rule._band_keys(of, words, hashes, rule._band_rows(similarity))]
        for key in keys if similarity < 1 else ():
            for other, name in bands.get(key, ()):
                alike = sum(a == b for a, b in zip(hashes, other, strict=True)) / len(hashes)
                if alike > similarity:
                    return Verdict("similar instruction", f"{alike:.2f} to that of {name}")
        for key in keys:
            bands.setdefault(key, []).append((hashes, one.meta.source_id))
        seen[of, words] = one.meta.source_id
        return None

    return [decide(one) for one in tasks]


@pytest.mark.parametrize("scope", ["pair", "all"])
@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8, 1.0])
def test_instructions_are_compared_in_any_order_of_their_pairs(
    tmp_path: Path, scope: str, similarity: float
):
    rng = random.Random(f"{scope}/{similarity}")
    words = [*"abcdefghijkl", "red", "2"]
    tasks = []
    for number in range(200):
        asked = [rng.choice(words) for _ in range(rng.randint(1, 9))]
        for changed in (asked, [*asked[:-1], rng.choice(words)]):
            one = task(" ".join(changed), pair=f"p{rng.randint(0, 4)}")
            tasks.append(replace(one, meta=replace(one.meta, source_id=f"row/{number}")))
    found = decided(
        "duplicate_instruction", tmp_path, *tasks, scope=scope, max_similarity=similarity
    )

    assert found == _by_the_book(tasks, scope, similarity)
    assert len({one.reason for one in found if isinstance(one, Verdict)}) == 1 + (similarity < 1)


@pytest.mark.parametrize("scope", ["pair", "all"])
def test_an_instruction_takes_less_than_a_kilobyte_of_memory(tmp_path: Path, scope: str):
    plug = plugin.load("filters", "duplicate_instruction")
    context = FilterContext(ImageBank([tmp_path]), {}, {}, kept_nowhere, 0)
    decide = plug.open(plugin.bind(plug.params, {"scope": scope}), context)
    rng = random.Random(0)
    num_tasks = 2_500
    tracemalloc.start()
    try:
        for number in range(num_tasks):
            hashes = [rng.randrange(2**32) for _ in range(64)]
            asked = task(f"Which shape is number {number}?", pair=f"p{number // 2}")
            assert decide(asked, hashes) is None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held / num_tasks < 1_000


GERMAN = "Welche Farbe hat das Auto, das vor dem alten Haus auf der Strasse steht?"


def test_tasks_in_other_languages_are_dropped(tmp_path: Path):
    english = task("Which colour has the car in front of the old house on the street?")
    german = task(GERMAN, "Das Auto vor dem Haus ist rot lackiert und glaenzt in der Sonne.")

    assert reasons("language", tmp_path, english, german) == [None, "another language"]
    assert reasons("language", tmp_path, german, languages=["de", "en"]) == [None]


def test_short_texts_are_not_judged_by_their_language(tmp_path: Path):
    assert reasons("language", tmp_path, task("Rot?", "Ja, rot.")) == [None]


@pytest.mark.parametrize(
    "name", ["task_length", "refusal", "answer_in_question", "duplicate_instruction", "language"]
)
def test_rules_read_the_texts_of_a_task_and_nothing_else(tmp_path: Path, name: str):
    one = task("Which shape is on the left?")
    other = replace(one, meta=replace(one.meta, extra={"caption": "I'm sorry"}))

    assert reasons(name, tmp_path, one) == reasons(name, tmp_path, other) == [None]
