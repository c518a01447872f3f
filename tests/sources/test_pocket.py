from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from engine import images
from engine.pocket.shapes import SHAPES
from engine.pocket.words import plural
from engine.records import Kind, make_record
from engine.records import Meta as RowMeta
from engine.sources import Problem, Row
from tests.sources.building import num_rows, read

KINDS = {
    "cells": Kind.PAIR,
    "cell_questions": Kind.QUESTION,
    "boards": Kind.PAIR,
    "shapes": Kind.CHAT,
    "shape_questions": Kind.QUESTION,
    "seeds": Kind.SEED,
    "judge": Kind.CHAT,
    "judge_questions": Kind.QUESTION,
}
SHAPE_WORDS = {word for name in SHAPES for word in (name, plural(name))}


def rows_of(found: list[Row | Problem]) -> list[Row]:
    rows = [item for item in found if isinstance(item, Row)]
    assert len(rows) == len(found)
    return rows


@pytest.mark.parametrize("world", KINDS)
def test_every_world_gives_whole_rows_of_its_kind(tmp_path: Path, world: str) -> None:
    rows = rows_of(read("pocket", tmp_path, world=world, num_rows=6))

    assert {KINDS[world]} == {row.kind for row in rows}
    assert len(rows) == len({row.source_id for row in rows})
    for row in rows:
        names = [str(number) for number in range(len(row.images))]
        make_record(names, row.turns, RowMeta(row.kind, row.source_id))
        assert all(turn.text or turn is row.turns[0] for turn in row.turns)
        assert all(images.decode(encoded).size == (64, 64) for encoded in row.images)


@pytest.mark.parametrize("world", KINDS)
def test_spans_of_a_world_are_the_whole(tmp_path: Path, world: str) -> None:
    whole = read("pocket", tmp_path, world=world, num_rows=5)

    first = read("pocket", tmp_path, range(0, 2), world=world, num_rows=5)
    rest = read("pocket", tmp_path, range(2, 5), world=world, num_rows=9)

    assert whole == first + rest
    assert num_rows("pocket", tmp_path, world=world, num_rows=5) == 5


def test_splits_share_no_picture(tmp_path: Path) -> None:
    def pictures(world: str, split: str) -> set[bytes]:
        rows = rows_of(read("pocket", tmp_path, world=world, num_rows=40, split=split))
        return {encoded for row in rows for encoded in row.images}

    assert not pictures("cells", "train") & pictures("cell_questions", "test")
    assert pictures("cells", "train") == pictures("cell_questions", "train")


def test_a_row_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = read("pocket", tmp_path, world="cells", num_rows=3)

    assert few == read("pocket", tmp_path, world="cells", num_rows=8)[:3]


def test_an_echo_says_its_made_up_words_again(tmp_path: Path) -> None:
    chats = [row.turns for row in rows_of(read("pocket", tmp_path, world="shapes", num_rows=200))]
    echoes = [turns for turns in chats if turns[0].text.startswith("Repeat: ")]

    assert 10 < len(echoes) < 60
    assert all(turns[0].text == f"Repeat: {turns[1].text}" for turns in echoes)


def test_a_seed_task_names_something_of_its_caption(tmp_path: Path) -> None:
    rows = rows_of(read("pocket", tmp_path, world="seeds", num_rows=200))
    captions = [set(re.findall("[a-z]+", row.turns[1].text.lower())) for row in rows]
    seen = Counter(word for words in captions for word in words)

    named = []
    for row, words in zip(rows, captions, strict=True):
        names = {word for word in words if seen[word] <= 2} | words & SHAPE_WORDS
        task = " ".join(turn.text.lower() for turn in row.turns[2:])
        named.append(any(name[:4] in task for name in names))

    assert sum(named) >= 195  # "bodies" hides the name of "a body"
