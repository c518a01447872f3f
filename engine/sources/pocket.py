"""The rendered worlds that travel with the package: rows made on the spot, from seeds alone.

`cells` (image-caption pairs of a new domain), `cell_questions` (its benchmark), `boards` (pictures
of the general world, each with the words for its squares) and `shapes` (chats about it) for
pre-training, `shape_questions` (its benchmark), `seeds` (seed tasks for a synthesizer) and `judge`
/ `judge_questions` (text rows for a judge).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from engine import images
from engine.plugin import AtLeast
from engine.pocket import (
    boards,
    captions,
    cell_captions,
    cell_questions,
    cells,
    facts,
    judge_items,
    shapes,
)
from engine.pocket import tasks as shape_tasks
from engine.pocket.words import made_up_word
from engine.records import ImagePart, Kind, Turn, assistant, user
from engine.sources import DigestFile, Locate, Problem, Row, Source, SourceContext

LICENCE = "Apache-2.0"
CAPTION_REQUESTS = (
    "Describe the image.",
    "Describe the image.",
    "What does the image show?",
    "Give a caption.",
    "Write a caption for this image.",
    "Caption:",
    "What is in this picture?",
    "Describe this picture.",
    "Summarise the image in a sentence.",
)
ECHO_SHARE = 0.15  # of the general chats: made-up words said again teach copying as such
RENAMED_SHARE = 0.2  # of the others: made-up names teach copying from the caption turn
BOARD_SHARE = 0.3  # of the rest: a word for each square, which teaches where to look
ECHO_WORDS = (4, 10)
REASONED_SHARE = 0.2  # of their answers: evidence first, then the conclusion
QUESTIONS_PER_SCENE = 3

World = Literal[
    "cells",
    "cell_questions",
    "boards",
    "shapes",
    "shape_questions",
    "seeds",
    "judge",
    "judge_questions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the source `pocket`."""

    world: Annotated[World, "Which world to render, and as what kind of rows."]
    num_rows: Annotated[int, AtLeast(1), "How many scenes to draw."]
    split: Annotated[str, "Name of the random stream; different names share no scene."] = "train"
    seed: Annotated[int, "Seed of the random stream."] = 0


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the rows of a span of scenes."""
    make = _MAKERS[params.world]
    for index in span if span is not None else range(params.num_rows):
        rng = random.Random(f"{params.world}:{params.seed}:{params.split}:{index}")
        yield from make(params, index, rng)


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> Any:
    """Return nothing: settings and version say everything."""
    return None


def _cells(params: Params, index: int, rng: random.Random) -> Iterator[Row]:
    field = cells.field(params.seed, params.split, index)
    caption = cell_captions.cell_caption(field, rng)
    turns = (user(ImagePart(0)), assistant(caption))
    yield _row(params, index, _png(cells.draw(field)), turns, Kind.PAIR)


def _cell_questions(params: Params, index: int, rng: random.Random) -> Iterator[Row]:
    field = cells.field(params.seed, params.split, index)
    picture = _png(cells.draw(field))
    for item in cell_questions.field_questions(field, rng):
        turns = (user(ImagePart(0), item.question), assistant(item.answer))
        extra = {"answer_type": item.kind, "options": list(item.options)}
        yield _row(params, index, picture, turns, Kind.QUESTION, item.kind, extra)


def _boards(params: Params, index: int, rng: random.Random) -> Iterator[Row]:
    scene = shapes.medley(params.seed, params.split, index)
    board = boards.board(facts.plain_facts(scene, rng))
    turns = (user(ImagePart(0)), assistant(board.precise))
    yield _row(params, index, _png(shapes.draw(scene)), turns, Kind.PAIR)


def _shapes(params: Params, index: int, rng: random.Random) -> Iterator[Row]:
    scene = shapes.scene(params.seed, params.split, index)
    pairs = _echo(rng) if rng.random() < ECHO_SHARE else _general_chat(scene, rng)
    yield _row(params, index, _png(shapes.draw(scene)), _chat(pairs), Kind.CHAT)


def _echo(rng: random.Random) -> list[tuple[str, str]]:
    text = " ".join(made_up_word(rng) for _ in range(rng.randint(*ECHO_WORDS)))
    return [(f"Repeat: {text}", text)]


def _general_chat(scene: shapes.Scene, rng: random.Random) -> list[tuple[str, str]]:
    is_renamed = rng.random() < RENAMED_SHARE
    told = facts.renamed_facts(scene, rng) if is_renamed else facts.plain_facts(scene, rng)
    caption = captions.caption(told, rng, is_scientific=is_renamed)
    described = (rng.choice(CAPTION_REQUESTS), caption)
    if is_renamed:  # copying is learnt with the caption in sight
        told = facts.told_by(caption, told)
        return [described, *_asked(told, rng, 4, shape_tasks.SEEDS)]
    if rng.random() < BOARD_SHARE:
        board = boards.board(told)
        return [(board.instruction, board.precise)]
    return [*_asked(told, rng, 4, shape_tasks.GENERAL), described]  # looking is learnt without


def _shape_questions(params: Params, index: int, rng: random.Random) -> Iterator[Row]:
    scene = shapes.scene(params.seed, params.split, index)
    told = facts.plain_facts(scene, rng)
    picture = _png(shapes.draw(scene))
    found = shape_tasks.draw_tasks(told, rng, QUESTIONS_PER_SCENE, shape_tasks.GENERAL)
    for task in found:
        turns = (user(ImagePart(0), task.instruction), assistant(task.precise))
        extra = {"answer_type": task.kind}
        yield _row(params, index, picture, turns, Kind.QUESTION, task.kind, extra)


def _seeds(params: Params, index: int, rng: random.Random) -> Iterator[Row]:
    scene = shapes.scene(params.seed, params.split, index)
    told = facts.renamed_facts(scene, rng)
    caption = captions.caption(told, rng, is_scientific=True)
    task = _seed_task(facts.told_by(caption, told), caption.lower(), rng)
    turns = (
        user(ImagePart(0)),
        assistant(caption),
        user(task.instruction),
        assistant(task.informative, style="informative"),
        assistant(task.precise, style="precise"),
    )
    yield _row(params, index, _png(shapes.draw(scene)), turns, Kind.SEED)


def _seed_task(told: facts.Facts, caption: str, rng: random.Random) -> facts.Task:
    """Return a task with a name of its caption: one that fits any picture is soon asked of all."""
    names = [name for name in told.names if name in caption] or told.names
    while True:
        (task,) = shape_tasks.draw_tasks(told, rng, 1, shape_tasks.SEEDS)
        text = f"{task.instruction} {task.informative} {task.precise}".lower()
        if any(name in text for name in names):
            return task


def _judge(params: Params, index: int, rng: random.Random) -> Iterator[Row]:
    item = judge_items.judge_item(params.seed, params.split, index)
    turns = (user(_judge_text(item)), assistant(item.label))
    is_question = params.world == "judge_questions"
    kind = Kind.QUESTION if is_question else Kind.CHAT
    extra = {"answer_type": item.label.lower()} if is_question else None
    yield Row(f"{params.split}/{index}", (), turns, kind, LICENCE, extra or {})


def _judge_text(item: judge_items.JudgeItem) -> str:
    """Lay an item out as the template `consistency_pocket@1` does."""
    return (
        f"Question: {item.instruction}\nInformative answer: {item.informative}\n"
        f"Precise answer: {item.precise}\nConsistent:"
    )


def _asked(
    told: facts.Facts, rng: random.Random, num: int, makers: shape_tasks.Makers
) -> list[tuple[str, str]]:
    tasks = shape_tasks.draw_tasks(told, rng, num, makers)
    return [(task.instruction, _answer(task, rng)) for task in tasks]


def _answer(task: facts.Task, rng: random.Random) -> str:
    if rng.random() < REASONED_SHARE:
        return f"{task.informative} So the answer is {task.precise}."
    return task.precise


def _chat(pairs: list[tuple[str, str]]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for position, (question, answer) in enumerate(pairs):
        turns.append(user(question) if position else user(ImagePart(0), question))
        turns.append(assistant(answer))
    return tuple(turns)


def _row(
    params: Params,
    index: int,
    picture: bytes,
    turns: tuple[Turn, ...],
    kind: Kind,
    suffix: str = "",
    extra: dict[str, Any] | None = None,
) -> Row:
    source_id = f"{params.split}/{index}" + (f"/{suffix}" if suffix else "")
    return Row(source_id, (picture,), turns, kind, LICENCE, extra or {})


def _png(picture: Any) -> bytes:
    return images.encode_png(picture)


_MAKERS: dict[str, Callable[[Params, int, random.Random], Iterator[Row]]] = {
    "cells": _cells,
    "cell_questions": _cell_questions,
    "boards": _boards,
    "shapes": _shapes,
    "shape_questions": _shape_questions,
    "seeds": _seeds,
    "judge": _judge,
    "judge_questions": _judge,
}

PLUGIN = Source(
    version=2,
    params=Params,
    rows=rows,
    fingerprint=fingerprint,
    num_rows=lambda params, context: params.num_rows,
)
