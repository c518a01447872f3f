"""Captions of general scenes and seed scenes: a varied grammar that leaves facts out at random."""

from __future__ import annotations

import random
from collections.abc import Sequence

from engine.pocket.facts import Facts, Kind

_SHOWS = (
    "The picture shows {x}.",
    "There are {x} in this image.",
    "An image of {x}.",
    "{x} on a plain ground.",
    "We see {x}.",
    "This image contains {x}.",
    "{x} can be seen.",
    "Shown here: {x}.",
    "{x}.",
    "A view with {x}.",
    "The sample contains {x}.",
    "Under the lens, {x} are visible.",
    "In this view one finds {x}.",
    "Figure: {x}.",
    "Present: {x}.",
    "The section reveals {x}.",
)
_ARRANGED = (
    "They are {a}.",
    "The {n} are arranged {a}.",
    "Everything lies {a}.",
    "Arrangement: {a}.",
    "The {n} lie {a}.",
    "All of them are {a}.",
    "Layout is {a}.",
)
_GROUND = (
    "The background is {b}.",
    "Stained with {b}.",
    "Preparation: {b}.",
    "{b} ground.",
    "The {b} stain was used.",
    "Prepared in {b}.",
    "Stain: {b}.",
    "Seen on {b}.",
)
_LABEL = (
    "Impression: {l}.",
    "This is consistent with {l}.",
    "Finding: {l}.",
    "The picture suggests {l}.",
    "Conclusion: {l}.",
    "It is a case of {l}.",
    "Reported as {l}.",
    "Compatible with {l}.",
    "Diagnosis: {l}.",
)
_ABSENT = (
    "No {n} are seen.",
    "There are no {n}.",
    "{n} are absent.",
    "Without {n}.",
    "No sign of {n}.",
    "Free of {n}.",
)
_TOTAL = ("{t} objects in all.", "In total {t}.", "Altogether {t} items.", "Count: {t}.")


def caption(facts: Facts, rng: random.Random, *, is_scientific: bool) -> str:
    """Return a caption. Scientific ones may name a stain, what is absent, and a finding."""
    sentences = [_kinds_sentence(facts, rng)]
    if facts.total >= 3 and rng.random() < 0.5:
        nouns = rng.choice(facts.kinds).nouns
        sentences.append(rng.choice(_ARRANGED).format(a=facts.arrangement, n=nouns))
    if facts.background is not None and rng.random() < 0.4:
        sentences.append(_ground(facts, rng, is_scientific))
    if is_scientific and rng.random() < 0.45:
        sentences.append(rng.choice(_ABSENT).format(n=rng.choice(facts.absent)[1]))
    if rng.random() < 0.15:
        sentences.append(rng.choice(_TOTAL).format(t=facts.total))
    if rng.random() < 0.3:
        first, rest = sentences[0], sentences[1:]
        rng.shuffle(rest)
        sentences = [*rest, first] if rng.random() < 0.4 else [first, *rest]
    if facts.label is not None:
        place = len(sentences) if rng.random() < 0.8 else 0
        sentences.insert(place, rng.choice(_LABEL).format(l=facts.label))
    return " ".join(_capital(sentence) for sentence in sentences)


def listed(phrases: Sequence[str], rng: random.Random) -> str:
    """Join phrases as a list in words."""
    if len(phrases) == 1:
        return phrases[0]
    last = rng.choice((" and ", " and ", " together with ", " as well as ", " with "))
    return ", ".join(phrases[:-1]) + last + phrases[-1]


def _kinds_sentence(facts: Facts, rng: random.Random) -> str:
    style = rng.choice(("number", "number", "digits", "some"))
    with_colour = rng.random() < 0.4
    phrases = [_kind_phrase(kind, rng, style, with_colour=with_colour) for kind in facts.kinds]
    return rng.choice(_SHOWS).format(x=listed(phrases, rng))


def _kind_phrase(kind: Kind, rng: random.Random, style: str, *, with_colour: bool) -> str:
    name = kind.noun if kind.num == 1 else kind.nouns
    adjective = (
        f"{kind.colour} " if with_colour else (f"{kind.size} " if rng.random() < 0.2 else "")
    )
    if style == "some":
        some = "a" if kind.num == 1 else rng.choice(("some", "several", "a group of"))
        return f"{some} {adjective}{name}"
    counted = kind.counted(rng, digits=style == "digits")
    number = counted[: -len(name)]
    return f"{number}{adjective}{name}"


def _ground(facts: Facts, rng: random.Random, is_scientific: bool) -> str:
    template = rng.choice(_GROUND) if is_scientific else f"The background is {facts.background}."
    return template.format(b=facts.background)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
