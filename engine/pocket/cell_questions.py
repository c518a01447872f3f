"""The benchmark of the new domain: questions and answers straight from the scene graph.

Independent of the caption and task grammars on purpose, and drawn on seeds of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.pocket.canvas import ARRANGEMENTS
from engine.pocket.cells import CELL_TYPES, FINDINGS, STAINS, Field


@dataclass(frozen=True, slots=True)
class Question:
    """One benchmark item; `options` are the texts to choose from, in the order shown."""

    kind: str  # yes_no, one_word, count or choice
    question: str
    answer: str
    options: tuple[str, ...] = ()


def field_questions(field: Field, rng: random.Random) -> tuple[Question, ...]:
    """Return one question of each kind about a field."""
    one_word = rng.choice(
        [maker for maker in (_main_type, _finding_name, _stain_name) if maker(field)]
    )
    word = one_word(field)
    assert word is not None
    return (_yes_no(field, rng), word, _count(field, rng), _choice(field, rng))


def _yes_no(field: Field, rng: random.Random) -> Question:
    shown = [name for name, _ in field.counts]
    if rng.random() < 0.3:
        is_true = rng.random() < 0.5
        finding = (
            field.finding if is_true else rng.choice([f for f in FINDINGS if f != field.finding])
        )
        return Question(
            "yes_no",
            f"Does this field show {finding}?",
            _truth(is_true),
        )
    is_true = rng.random() < 0.5
    name = rng.choice(shown if is_true else [n for n in CELL_TYPES if n not in shown])
    return Question("yes_no", f"Are any {name}s present?", _truth(is_true))


def _main_type(field: Field) -> Question | None:
    if field.commonest is None:
        return None
    return Question("one_word", "Which cell type is the most common?", field.commonest)


def _finding_name(field: Field) -> Question | None:
    return Question("one_word", "What is the finding?", field.finding)


def _stain_name(field: Field) -> Question | None:
    return Question("one_word", "Which stain was used?", field.stain)


def _count(field: Field, rng: random.Random) -> Question:
    if len(field.counts) > 1 and rng.random() < 0.3:
        return Question("count", "How many cells are there in total?", str(field.total))
    name, num = rng.choice(field.counts)
    return Question("count", f"How many {name}s are there?", str(num))


def _choice(field: Field, rng: random.Random) -> Question:
    pools: list[tuple[str, str, tuple[str, ...]]] = [
        ("stain", field.stain, tuple(STAINS)),
        ("finding", field.finding, FINDINGS),
    ]
    if field.total >= 3:
        pools.append(("arrangement", field.arrangement, ARRANGEMENTS))
    if field.commonest is not None:
        pools.append(("main cell type", field.commonest, CELL_TYPES))
    what, answer, pool = rng.choice(pools)
    shown = {name for name, _ in field.counts}
    wrong = [option for option in pool if option != answer and option not in shown]
    options = [answer, *rng.sample(wrong, 2)]
    rng.shuffle(options)
    text = f"What is the {what}? Options: {options[0]}, {options[1]} or {options[2]}."
    return Question("choice", text, answer, tuple(options))


def _truth(is_true: bool) -> str:
    return "yes" if is_true else "no"
