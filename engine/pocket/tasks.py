"""Tasks about a general or seed scene: instruction, informative answer, precise answer."""

from __future__ import annotations

import random
from collections.abc import Callable

from engine.pocket.boards import part_of_side
from engine.pocket.canvas import ARRANGEMENTS
from engine.pocket.facts import Facts, Kind, Task
from engine.pocket.words import NUMBERS

Maker = Callable[[Facts, random.Random], Task | None]
Makers = tuple[tuple[Maker, float], ...]  # with their weights

_ANY = (
    "Are there any {n}?",
    "Is there a {s} in the image?",
    "Do you see {n} here?",
    "Does the picture contain {n}?",
    "Are {n} present?",
    "Are {n} visible in this picture?",
    "Is any {s} shown?",
)
_COUNT = (
    "How many {n} are there?",
    "How many {n} are visible?",
    "Count the {n}.",
    "What is the number of {n}?",
    "How many {n} can be seen?",
    "Give the number of {n}.",
    "How many {n} does the image show?",
)
_MOST = (
    "Which kind is the most common?",
    "What is seen most often?",
    "Which type dominates?",
    "Name the most frequent kind.",
    "What is the main type shown?",
    "Which type is most common?",
)
_WHAT = (
    "What is shown?",
    "What kind of object is shown?",
    "Name what is in the picture.",
    "Which kind is present?",
    "What type is visible?",
    "Which type do you see?",
)
_HOW = (
    "How are the {n} arranged?",
    "What is the arrangement?",
    "How are they arranged?",
    "Describe the arrangement in a word or two.",
    "Which arrangement is shown?",
    "What arrangement do the {n} show?",
)
_STAIN = (
    "Which stain was used?",
    "What is the background?",
    "What preparation is this?",
    "Name the stain.",
    "What stain is this?",
)
_LABEL = (
    "What is the finding?",
    "What does the picture suggest?",
    "What is the impression?",
    "Name the finding.",
    "What is the diagnosis?",
    "What is the conclusion?",
    "Which finding is reported?",
)
_TOTAL = (
    "How many objects are there in all?",
    "What is the total number?",
    "How many are there in total?",
    "Count everything.",
    "How many objects does the image show?",
)
_COLOUR = (
    "What colour are the {n}?",
    "Name the colour of the {n}.",
    "Which colour do the {n} have?",
)
_MORE = (
    "Which are there more of, {a} or {b}?",
    "Are there more {a} or more {b}?",
    "Which is more common: {a} or {b}?",
    "Which type is more frequent, {a} or {b}?",
)
_WHERE = (
    "Where is the {s}?",
    "In which part of the picture is the {s}?",
    "Where can the {s} be found?",
)
_PARTS = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)
_OPEN = (
    "Describe the picture.",
    "What can you say about this image?",
    "Write a short caption.",
    "Summarise what is visible.",
    "Give an overview.",
)
_OPTIONS = (
    "Which {what} is it: {options}?",
    "Choose the {what}: {options}.",
    "What is the {what}? Options: {options}.",
    "Which {what} applies: {options}?",
)


def presence(facts: Facts, rng: random.Random) -> Task:
    """Ask whether a kind is there; half of the kinds asked for are not."""
    ask = rng.choice(_ANY)
    if rng.random() < 0.5:
        noun, nouns = rng.choice(facts.absent)
        why = rng.choice(
            (
                f"No {nouns} are seen in the image.",
                f"There are no {nouns} here.",
                f"The image shows no {nouns}.",
            )
        )
        return Task("presence", ask.format(n=nouns, s=noun), f"{why} The answer is no.", "no")
    kind = rng.choice(facts.kinds)
    why = rng.choice(
        (
            f"The image shows {kind.counted(rng)}.",
            f"There {_are(kind)} {kind.counted(rng)} in the image.",
            f"{_capital(kind.nouns)} are visible.",
        )
    )
    return Task(
        "presence", ask.format(n=kind.nouns, s=kind.noun), f"{why} The answer is yes.", "yes"
    )


def count(facts: Facts, rng: random.Random) -> Task:
    """Ask for the number of one kind."""
    kind = rng.choice(facts.kinds)
    why = rng.choice(
        (
            f"The image shows {kind.counted(rng)}.",
            f"There {_are(kind)} {kind.counted(rng)}.",
            f"I can see {kind.counted(rng)}.",
        )
    )
    return Task("count", rng.choice(_COUNT).format(n=kind.nouns), why, str(kind.num))


def total(facts: Facts, rng: random.Random) -> Task:
    """Ask for the number of all objects."""
    parts = " and ".join(kind.counted(rng) for kind in facts.kinds)
    why = f"There {'is' if facts.total == 1 else 'are'} {parts}, {NUMBERS[facts.total]} in all."
    return Task("total", rng.choice(_TOTAL), why, str(facts.total))


def commonest(facts: Facts, rng: random.Random) -> Task | None:
    """Ask for the kind seen most."""
    kind = facts.commonest
    if kind is None or len(facts.kinds) < 2:
        return None
    others = " and ".join(k.counted(rng) for k in facts.kinds if k is not kind)
    why = rng.choice(
        (
            f"There {_are(kind)} {kind.counted(rng)} and only {others}.",
            f"Most objects are {kind.nouns}.",
            f"The {kind.nouns} outnumber the rest.",
        )
    )
    return Task("commonest", rng.choice(_MOST), why, kind.noun)


def naming(facts: Facts, rng: random.Random) -> Task | None:
    """Ask for the only kind."""
    if len(facts.kinds) != 1:
        return None
    (kind,) = facts.kinds
    why = rng.choice(
        (
            f"The image shows {kind.counted(rng)} and nothing else.",
            f"Every object here is a {kind.noun}.",
            f"Only {kind.nouns} are visible.",
        )
    )
    return Task("naming", rng.choice(_WHAT + _MOST), why, kind.noun)


def arrangement(facts: Facts, rng: random.Random) -> Task | None:
    """Ask how the objects lie."""
    if facts.total < 3:
        return None
    nouns = rng.choice(facts.kinds).nouns
    why = rng.choice(
        (
            f"The {nouns} lie {facts.arrangement}.",
            f"The objects are {facts.arrangement}.",
            f"They are arranged {facts.arrangement}.",
        )
    )
    return Task("arrangement", rng.choice(_HOW).format(n=nouns), why, facts.arrangement)


def background(facts: Facts, rng: random.Random) -> Task | None:
    """Ask for stain or background."""
    if facts.background is None:
        return None
    why = rng.choice(
        (
            f"The background is {facts.background}.",
            f"The stain is {facts.background}.",
            f"It was prepared with {facts.background}.",
        )
    )
    return Task("background", rng.choice(_STAIN), why, facts.background)


def label(facts: Facts, rng: random.Random) -> Task | None:
    """Ask for the finding."""
    if facts.label is None:
        return None
    kind = rng.choice(facts.kinds)
    why = rng.choice(
        (
            f"The {kind.nouns} point to {facts.label}.",
            f"The image with {kind.counted(rng)} is consistent with {facts.label}.",
            f"The finding is {facts.label}.",
        )
    )
    return Task("label", rng.choice(_LABEL), why, facts.label)


def colour(facts: Facts, rng: random.Random) -> Task:
    """Ask for a colour, which the caption often leaves to the picture."""
    kind = rng.choice(facts.kinds)
    why = rng.choice(
        (
            f"The {kind.nouns} are {kind.colour}.",
            f"The colour of the {kind.nouns} is {kind.colour}.",
        )
    )
    return Task("colour", rng.choice(_COLOUR).format(n=kind.nouns), why, kind.colour)


def more(facts: Facts, rng: random.Random) -> Task | None:
    """Ask which of two kinds is more frequent."""
    if len(facts.kinds) < 2:
        return None
    first, second = rng.sample(facts.kinds, 2)
    if first.num == second.num:
        return None
    winner = first if first.num > second.num else second
    why = f"There {_are(first)} {first.counted(rng)} and {second.counted(rng)}."
    return Task("more", rng.choice(_MORE).format(a=first.nouns, b=second.nouns), why, winner.nouns)


def where(facts: Facts, rng: random.Random) -> Task | None:
    """Ask for the part of the picture where the only object of a kind is."""
    single = [spot for spot in facts.spots if sum(s.noun == spot.noun for s in facts.spots) == 1]
    if not single:
        return None
    spot = rng.choice(single)
    part = _PARTS[part_of_side(spot.y, 3)][part_of_side(spot.x, 3)]
    why = rng.choice((f"The {spot.noun} is at the {part}.", f"A {spot.noun} lies at the {part}."))
    return Task("where", rng.choice(_WHERE).format(s=spot.noun), why, part)


def choice(facts: Facts, rng: random.Random) -> Task | None:
    """Ask to choose among listed options."""
    maker, what = rng.choice(_CHOICES)
    task = maker(facts, rng)
    if task is None:
        return None
    wrong = _wrong_options(task, facts, rng)
    options = [task.precise, *wrong[: rng.choice((1, 2))]]
    rng.shuffle(options)
    listed = ", ".join(options[:-1]) + " or " + options[-1]
    return Task(
        "choice",
        rng.choice(_OPTIONS).format(what=what, options=listed),
        task.informative,
        task.precise,
    )


def open_ended(facts: Facts, rng: random.Random) -> Task:
    """Ask for a description, which has no single right answer."""
    parts = " and ".join(kind.counted(rng) for kind in facts.kinds)
    ground = facts.background or "a plain ground"
    informative = f"The image shows {parts}, {facts.arrangement}, on {ground}."
    return Task(
        "open",
        rng.choice(_OPEN),
        informative,
        rng.choice((f"an image of {parts}", f"{parts}", f"{facts.kinds[0].nouns} on {ground}")),
    )


_CHOICES: tuple[tuple[Maker, str], ...] = (
    (naming, "type"),
    (label, "finding"),
    (background, "stain"),
    (background, "background"),
    (commonest, "main type"),
    (arrangement, "arrangement"),
)
GENERAL: Makers = (
    (presence, 3),
    (count, 3),
    (total, 1.5),
    (commonest, 2),
    (naming, 2),
    (arrangement, 1.5),
    (background, 1),
    (colour, 2),
    (where, 1.5),
    (more, 1),
    (choice, 2),
)
SEEDS: Makers = (
    (presence, 3),
    (count, 3),
    (total, 1),
    (commonest, 2),
    (naming, 2.5),
    (arrangement, 1.5),
    (background, 1.5),
    (label, 2.5),
    (colour, 2),
    (more, 1),
    (choice, 2),
    (open_ended, 1),
)


def draw_tasks(facts: Facts, rng: random.Random, num: int, makers: Makers) -> tuple[Task, ...]:
    """Return up to `num` tasks of different kinds."""
    found: dict[str, Task] = {}
    functions, weights = zip(*makers, strict=True)
    attempts = 0
    while not found or (len(found) < num and attempts < num * 4):
        attempts += 1
        task = rng.choices(functions, weights)[0](facts, rng)
        if task is not None:
            found.setdefault(task.kind, task)
    return tuple(found.values())


def _wrong_options(task: Task, facts: Facts, rng: random.Random) -> list[str]:
    if task.kind == "background":
        return list(facts.other_backgrounds)
    if task.kind == "arrangement":
        return rng.sample([name for name in ARRANGEMENTS if name != facts.arrangement], 2)
    return [name for name, _ in facts.absent]


def _are(kind: Kind) -> str:
    return "is" if kind.num == 1 else "are"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
