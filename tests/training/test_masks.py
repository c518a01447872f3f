from __future__ import annotations

from itertools import groupby

import pytest

from engine.models._inputs import InputMaker
from engine.models._loading import open_kit
from engine.records import ImagePart, assistant, user
from engine.training.masks import examples
from tests.models import tiny
from tests.training.rows import PICTURES, chat

(DIGEST, *_) = PICTURES


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> InputMaker:
    folder = tiny.idefics3(tmp_path_factory.mktemp("model"))
    return InputMaker(open_kit(str(folder)), PICTURES.__getitem__)


def trained_runs(inputs: InputMaker, *turns, images=(DIGEST,), max_length=500) -> list[str]:
    """Return the runs of trained tokens of a row, as text."""
    (example,) = examples([chat(*turns, images=images)], inputs, max_length, refuse)
    pairs = zip(example.ids.tolist(), example.is_trained.tolist(), strict=True)
    runs = [(flag, [i for i, _ in run]) for flag, run in groupby(pairs, key=lambda pair: pair[1])]
    return [inputs.kit.tokenizer.decode(ids) for flag, ids in runs if flag]


def refuse(source_id: str, reason: str, detail: str) -> None:
    raise AssertionError((source_id, reason, detail))


def test_answers_are_trained_with_their_end_marker(inputs: InputMaker):
    asked, again = user(ImagePart(0), "What is it?"), user("Sure?")

    assert trained_runs(inputs, asked, assistant("a cell"), again, assistant("yes")) == [
        "a cell<|end|>",
        "yes<|end|>",
    ]


def test_the_synthesizer_is_trained_on_everything_from_turn_two_and_on_the_end(inputs: InputMaker):
    caption = user(ImagePart(0), "Describe."), assistant("a cell", loss=False)
    asked = user("Precise.\nHow many?", loss=True), assistant("1", loss=True)

    assert trained_runs(inputs, *caption, *asked, *asked) == [
        "Precise.\nHow many?<|end|><|assistant|>1<|end|>"
        "<|user|>Precise.\nHow many?<|end|><|assistant|>1<|end|><|end|>"
    ]


def test_a_turn_without_loss_is_not_trained(inputs: InputMaker):
    turns = user(ImagePart(0), "One"), assistant("1", loss=False), user("Two"), assistant("2")

    assert trained_runs(inputs, *turns) == ["2<|end|>"]


def test_letters_of_several_bytes_are_trained_whole(inputs: InputMaker):
    assert trained_runs(inputs, user(ImagePart(0), "ä?"), assistant("größe ∆")) == [
        "größe ∆<|end|>"
    ]


def test_a_long_row_is_cut_at_a_turn_border(inputs: InputMaker):
    notes = []
    row = chat(
        user(ImagePart(0), "One"),
        assistant("1"),
        user("Two"),
        assistant("x" * 90),
        images=(DIGEST,),
    )
    made = list(examples([row], inputs, 60, lambda *note: notes.append(note[1])))

    assert notes == ["cut at a turn border"]
    assert inputs.kit.tokenizer.decode(made[0].ids).endswith("One<|end|><|assistant|>1<|end|>")


def test_rows_of_no_use_are_named_with_a_reason(inputs: InputMaker):
    notes = []
    rows = [
        chat(user("x" * 90), assistant("1"), name="long"),
        chat(user("Q"), assistant("1", loss=False), name="untrained"),
        chat(user(ImagePart(0), "Q"), assistant("1"), images=("0" * 64,), name="lost"),
        chat(user("an <image> marker"), assistant("1"), name="marker"),
    ]
    made = list(examples(rows, inputs, 60, lambda *note: notes.append(note[:2])))

    assert made == []
    assert sorted(notes) == [
        ("long", "too long"),
        ("lost", "image is missing"),
        ("marker", "not a chat of this model"),
        ("untrained", "nothing to train on"),
    ]
