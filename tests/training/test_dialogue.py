from __future__ import annotations

import random

import pytest

from engine.records import (
    ImagePart,
    Kind,
    Meta,
    Record,
    RecordError,
    TextPart,
    assistant,
    make_record,
    user,
)
from engine.training.dialogue import (
    EMPTY_TURN,
    NO_HEADER,
    NO_TURNS,
    ONE_STYLE,
    NoTask,
    Task,
    generation_turns,
    seed_chat,
    tasks_from_turns,
)
from tests.stages.talking import a_pair, dialogue_turns, prompt_texts

TEMPLATE = prompt_texts()["synthesize@1"]
PRECISE, INFORMATIVE = "Answer with a precise response.\n", "Answer with an informative response.\n"


def seed(num_tasks: int = 1) -> Record:
    turns = [user(ImagePart(0)), assistant("A red cat.")]
    for n in range(num_tasks):
        turns += [
            user(f"Question {n}?"),
            assistant(f"Long {n}.", style="informative"),
            assistant(f"Short {n}", style="precise"),
        ]
    return make_record(("i" * 64,), turns, Meta(Kind.SEED, "s", licence="CC0-1.0"))


def test_the_caption_turn_has_no_loss_and_all_that_follows_has() -> None:
    chat = seed_chat(seed(), TEMPLATE, random.Random(1))

    assert [turn.loss for turn in chat.turns] == [False, False, True, True, True, True]
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * 3
    assert (chat.meta.kind, chat.meta.licence, chat.meta.lineage) == (
        Kind.CHAT,
        "CC0-1.0",
        (seed().id,),
    )


def test_the_image_stands_in_the_first_turn_alone() -> None:
    chat = seed_chat(seed(2), TEMPLATE, random.Random(1))

    assert chat.images == seed().images
    assert chat.turns[0].parts == (ImagePart(0), TextPart("Describe the image."))
    assert not [p for turn in chat.turns[1:] for p in turn.parts if isinstance(p, ImagePart)]


def test_both_orders_of_the_two_answers_occur() -> None:
    chats = [seed_chat(seed(), TEMPLATE, random.Random(n)) for n in range(20)]

    assert {tuple(turn.text for turn in chat.turns[2:]) for chat in chats} == {
        (PRECISE + "Question 0?", "Short 0", INFORMATIVE + "Question 0?", "Long 0."),
        (INFORMATIVE + "Question 0?", "Long 0.", PRECISE + "Question 0?", "Short 0"),
    }


def test_what_a_synthesizer_learns_is_what_is_read_back() -> None:
    for number in range(10):
        chat = seed_chat(seed(2), TEMPLATE, random.Random(number))

        assert tasks_from_turns(chat.turns[2:], TEMPLATE) == [
            Task("Question 0?", "Long 0.", "Short 0"),
            Task("Question 1?", "Long 1.", "Short 1"),
        ]


def test_a_synthesizer_is_asked_with_the_turns_it_was_taught_with() -> None:
    pair = a_pair(1)
    taught = seed_chat(
        make_record(pair.images, [*pair.turns, *seed().turns[2:]], Meta(Kind.SEED, "s")),
        TEMPLATE,
        random.Random(1),
    )

    asked = generation_turns(pair, TEMPLATE)

    assert [turn.parts for turn in asked] == [turn.parts for turn in taught.turns[:2]]


def test_a_seed_answer_without_style_is_refused() -> None:
    turns = [user(ImagePart(0)), assistant("A cat."), user("Why?"), assistant("So.")]
    record = make_record(("i" * 64,), turns, Meta(Kind.SEED, "s"))

    with pytest.raises(RecordError, match="without instruction or style"):
        seed_chat(record, TEMPLATE, random.Random(1))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], NoTask(NO_TURNS)),
        (["How many?", "5"], NoTask(NO_HEADER)),
        ([PRECISE + "A?", "5"], NoTask(ONE_STYLE)),
        ([PRECISE + "A?", "5", PRECISE + "A?", "6"], NoTask(ONE_STYLE)),
        ([PRECISE + "A?", "5", INFORMATIVE + "B?", "Five."], NoTask(ONE_STYLE)),
        ([PRECISE, "5"], NoTask(EMPTY_TURN)),
        ([PRECISE + "A?", " "], NoTask(EMPTY_TURN)),
        ([PRECISE + "A?", "5", INFORMATIVE + "A?", "Five."], [Task("A?", "Five.", "5")]),
        ([PRECISE + " A?\n", "5 ", INFORMATIVE + "A?", " Five."], [Task("A?", "Five.", "5")]),
        (
            ["Hi", "Ho", PRECISE + "A?", "1", INFORMATIVE + "B?", "Two.", PRECISE + "B?", "2"],
            [Task("B?", "Two.", "2")],
        ),
        (
            [PRECISE + "A?", "1", PRECISE + "A?", "9", INFORMATIVE + "A?", "One."],
            [Task("A?", "One.", "1")],
        ),
        (
            [
                *(PRECISE + "A?", "1", INFORMATIVE + "B?", "Two.", PRECISE + "B?", "2"),
                *(INFORMATIVE + "A?", "One.", INFORMATIVE + "B?", "Again."),
            ],
            [Task("B?", "Two.", "2"), Task("A?", "One.", "1")],
        ),
    ],
)
def test_instructions_with_both_answers_are_the_tasks_in_the_order_they_are_complete(
    pieces: list[str], expected: list[Task] | NoTask
) -> None:
    assert expected == tasks_from_turns(dialogue_turns(*pieces), TEMPLATE)


def test_other_wordings_need_no_code() -> None:
    template = (
        "{% if turn == 'caption' %}Say.{% else %}[{{ turn }}] {{ instruction }} (end){% endif %}"
    )
    turns = dialogue_turns("[precise] A? (end)", "1", "[informative] A? (end)", "One.")

    assert tasks_from_turns(turns, template) == [Task("A?", "One.", "1")]
