"""Captions of microscopy fields: a grammar of its own, with facts left out at random."""

from __future__ import annotations

import random

from engine.pocket.cells import CELL_TYPES, Field
from engine.pocket.words import NUMBERS, plural

_OPENINGS = (
    "Micrograph with {x}.",
    "Light microscopy shows {x}.",
    "The field contains {x}.",
    "High-power field: {x}.",
    "{x} in a smear.",
    "Smear showing {x}.",
    "On microscopy there are {x}.",
    "{x} are noted.",
    "Field of view with {x}.",
    "The smear holds {x}.",
    "Microscopic image of {x}.",
    "This field has {x}.",
)
_STAINS = (
    "Stained with {s}.",
    "{s} stain.",
    "The {s} stain was used.",
    "Stain: {s}.",
    "Prepared with {s}.",
    "Coloured by {s}.",
)
_LAYOUTS = (
    "The cells are {a}.",
    "The {n} lie {a}.",
    "Cells {a}.",
    "They are arranged {a}.",
    "Arrangement: {a}.",
    "The cells appear {a}.",
)
_FINDINGS = (
    "Impression: {f}.",
    "Finding: {f}.",
    "Consistent with {f}.",
    "Compatible with {f}.",
    "This suggests {f}.",
    "Diagnosis: {f}.",
    "Reported as {f}.",
    "In keeping with {f}.",
)
_NEGATIVES = (
    "No {n} are seen.",
    "There are no {n}.",
    "{n} are absent.",
    "No sign of {n}.",
    "Without {n}.",
)


def cell_caption(field: Field, rng: random.Random) -> str:
    """Return a caption of a field."""
    sentences = [_opening(field, rng)]
    if field.total >= 3 and rng.random() < 0.45:
        nouns = plural(rng.choice(field.counts)[0])
        sentences.append(rng.choice(_LAYOUTS).format(a=field.arrangement, n=nouns))
    if rng.random() < 0.45:
        sentences.append(rng.choice(_STAINS).format(s=field.stain))
    if rng.random() < 0.6:
        sentences.append(rng.choice(_NEGATIVES).format(n=plural(_absent(field, rng))))
    rng.shuffle(sentences)
    if rng.random() < 0.75:
        sentences.append(rng.choice(_FINDINGS).format(f=field.finding))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _opening(field: Field, rng: random.Random) -> str:
    with_digits = rng.random() < 0.3
    vague = rng.random() < 0.12
    phrases = [
        _counted(name, num, rng, with_digits=with_digits, is_vague=vague)
        for name, num in field.counts
    ]
    rng.shuffle(phrases)
    return rng.choice(_OPENINGS).format(
        x=rng.choice((" and ", " and ", " with ", " together with ")).join(phrases)
    )


def _counted(name: str, num: int, rng: random.Random, *, with_digits: bool, is_vague: bool) -> str:
    if num == 1:
        return f"{'1' if with_digits else 'one'} {name}"
    if is_vague:
        return f"several {plural(name)}"
    return f"{num if with_digits else NUMBERS[num]} {plural(name)}"


def _absent(field: Field, rng: random.Random) -> str:
    shown = {name for name, _ in field.counts}
    return rng.choice([name for name in CELL_TYPES if name not in shown])
