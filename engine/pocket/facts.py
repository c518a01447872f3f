"""What a caption may say and a question may ask, freed from how it was drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.pocket.shapes import Scene
from engine.pocket.words import NUMBERS, made_up_word, plural


@dataclass(frozen=True, slots=True)
class Kind:
    """Some objects that go by one name."""

    noun: str
    nouns: str
    num: int
    colour: str
    size: str

    def counted(self, rng: random.Random, *, digits: bool = False) -> str:
        """Return "3 wugs" or "three wugs", with "a" for one at times."""
        if self.num == 1:
            return (
                f"{rng.choice(('one', 'a single'))} {self.noun}" if not digits else f"1 {self.noun}"
            )
        return f"{self.num if digits else NUMBERS[self.num]} {self.nouns}"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one picture."""

    kinds: tuple[Kind, ...]
    arrangement: str
    background: str  # the background's colour word, or the name of a stain
    label: str | None  # a named finding that concludes the caption
    absent: tuple[tuple[str, str], ...]  # nouns (singular, plural) of things that are not there

    @property
    def total(self) -> int:
        """The number of all objects."""
        return sum(kind.num for kind in self.kinds)

    @property
    def commonest(self) -> Kind | None:
        """The kind with most objects, or None on a tie."""
        ranked = sorted(self.kinds, key=lambda kind: -kind.num)
        tied = len(ranked) > 1 and ranked[0].num == ranked[1].num
        return None if tied else ranked[0]


@dataclass(frozen=True, slots=True)
class Task:
    """An instruction with both answers. `kind` names the question form."""

    kind: str
    instruction: str
    informative: str
    precise: str


def plain_facts(scene: Scene, rng: random.Random) -> Facts:
    """Return the facts of a general scene under the real names of its shapes."""
    from engine.pocket.shapes import SHAPES

    shown = {group.shape for group in scene.groups}
    others = rng.sample([shape for shape in SHAPES if shape not in shown], 3)
    kinds = tuple(Kind(g.shape, plural(g.shape), g.num, g.colour, g.size) for g in scene.groups)
    absent = tuple((name, plural(name)) for name in others)
    return Facts(kinds, scene.arrangement, scene.background, None, absent)


def renamed_facts(scene: Scene, rng: random.Random) -> Facts:
    """Return the facts of a general scene under made-up names, with a made-up label and stain."""
    kinds = []
    for group in scene.groups:
        noun = made_up_word(rng) if rng.random() < 0.9 else group.shape
        if rng.random() < 0.15:
            head = rng.choice(("cell", "body", "grain", "fibre", "unit", "shape"))
            noun = f"{made_up_word(rng)} {head}"
        kinds.append(Kind(noun, plural(noun), group.num, group.colour, group.size))
    names = [made_up_word(rng) for _ in range(2)]
    label = None
    if rng.random() < 0.7:
        label = made_up_word(rng)
        if rng.random() < 0.25:
            label = f"{rng.choice(('normal', 'mild', 'early', 'dense', 'mixed'))} {label}"
    background = made_up_word(rng) if rng.random() < 0.7 else scene.background
    absent = tuple((name, plural(name)) for name in names)
    return Facts(tuple(kinds), scene.arrangement, background, label, absent)
