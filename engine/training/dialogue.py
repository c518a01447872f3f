"""The synthesizer's dialogue: how it is taught, asked and read (Cheng et al. 2024, table 1).

A caption turn comes first. Then every task is asked twice, under a header that wants a precise and
one that wants an informative response. Because the loss covers the user's text as well, the tuned
model writes instructions itself: it is asked with the caption turn alone and an open *user* turn.
The wording of all headers is in the template, so a synthesizer of another house needs no code.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine import prompts
from engine.records import (
    ImagePart,
    Kind,
    Meta,
    Record,
    RecordError,
    Turn,
    assistant,
    is_unicode,
    make_record,
    user,
)

STYLES = ("informative", "precise")
NO_TURNS = "nothing was written"
NO_HEADER = "no question under a header"
EMPTY_TURN = "an instruction or answer is empty"
NOT_UNICODE = "an instruction or answer is not Unicode"
ONE_STYLE = "no instruction has both answers"
_INSTRUCTION = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for the instruction when headers are cut


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction with both of its answers."""

    instruction: str
    informative: str
    precise: str


@dataclass(frozen=True, slots=True)
class NoTask:
    """Why a completion gave no task: a short constant."""

    reason: str


def seed_chat(record: Record, template: str, rng: random.Random) -> Record:
    """Return the training chat of a SEED record: loss on everything after the caption turn.

    The two exchanges of each task come in random order. Images stand in the first turn alone.
    Raises `RecordError` for turns that are not laid out as a seed task.
    """
    images = [part for part in record.turns[0].parts if isinstance(part, ImagePart)]
    turns = [
        user(*images, prompts.render(template, turn="caption"), loss=False),
        assistant(record.caption, loss=False),
    ]
    for instruction, answers in _seed_tasks(record):
        for answer in rng.sample(answers, k=len(answers)):
            header = prompts.render(template, turn=answer.style, instruction=instruction)
            turns += [user(header, loss=True), assistant(answer.text, loss=True)]
    meta = Meta(Kind.CHAT, record.meta.source_id, record.meta.licence, (record.id,))
    return make_record(record.images, turns, meta)


def generation_turns(record: Record, template: str) -> tuple[Turn, ...]:
    """Return the turns that precede the first one a synthesizer writes about a pair."""
    return (
        user(ImagePart(0), prompts.render(template, turn="caption")),
        assistant(record.caption),
    )


def tasks_from_turns(turns: Sequence[Turn], template: str) -> list[Task] | NoTask:
    """Return every instruction that is there with both answers, in order, or why there is none."""
    if not turns:
        return NoTask(NO_TURNS)
    answers: dict[str, dict[str, str]] = {}
    found: dict[str, Task] = {}
    reason = NO_HEADER
    for style, instruction, answer in _exchanges(turns, template):
        fault = fault_of(instruction, answer)
        if fault is not None:
            reason = fault
            continue
        reason = ONE_STYLE
        by_style = answers.setdefault(instruction, {})
        by_style.setdefault(style, answer)
        if len(by_style) == len(STYLES) and instruction not in found:
            found[instruction] = Task(instruction, by_style["informative"], by_style["precise"])
    return list(found.values()) or NoTask(reason)


def fault_of(*texts: str) -> str | None:
    """Return why one of the texts is no instruction and no answer; None when all may be."""
    if not all(texts):
        return EMPTY_TURN
    return None if all(map(is_unicode, texts)) else NOT_UNICODE


def _seed_tasks(record: Record) -> Iterator[tuple[str, list[Turn]]]:
    """Yield each instruction of a SEED record with its answers."""
    tasks: list[tuple[str, list[Turn]]] = []
    for turn in record.turns[2:]:
        if turn.role == "user":
            tasks.append((turn.text, []))
        elif not tasks or turn.style not in STYLES:
            raise RecordError("a seed task has an answer without instruction or style")
        else:
            tasks[-1][1].append(turn)
    yield from tasks


def _exchanges(turns: Sequence[Turn], template: str) -> Iterator[tuple[str, str, str]]:
    """Yield (style, instruction, answer) of every question that stands under a known header."""
    headers = {style: _around_instruction(template, style) for style in STYLES}
    for asked, answered in pairwise(turns):
        if (asked.role, answered.role) != ("user", "assistant"):
            continue
        question = asked.text.strip()
        for style, (before, after) in headers.items():
            if question.startswith(before) and question.endswith(after):
                instruction = question.removeprefix(before).removesuffix(after).strip()
                yield style, instruction, answered.text.strip()


def _around_instruction(template: str, style: str) -> tuple[str, str]:
    before, _, after = prompts.render(template, turn=style, instruction=_INSTRUCTION).partition(
        _INSTRUCTION
    )
    return before.rstrip(), after.strip()
