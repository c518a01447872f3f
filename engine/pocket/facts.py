"""What a caption may say and a question may ask, freed from how it was drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from engine.pocket.shapes import BACKGROUNDS, SHAPES, Scene, placed
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
class Spot:
    """One object and its centre, in pixels from the top left corner."""

    noun: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one picture."""

    kinds: tuple[Kind, ...]
    spots: tuple[Spot, ...]
    arrangement: str
    background: str | None  # the background's colour word, or the name of a stain; None: untold
    other_backgrounds: tuple[str, ...]
    label: str | None  # a named finding that concludes the caption
    absent: tuple[tuple[str, str], ...]  # nouns (singular, plural) of things that are not there

    @property
    def total(self) -> int:
        """The number of all objects."""
        return sum(kind.num for kind in self.kinds)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of a kind, absent ones too, of the background and of the finding."""
        kinds = [kind.noun for kind in self.kinds] + [noun for noun, _ in self.absent]
        return tuple(name for name in (*kinds, self.background, self.label) if name)

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
    shown = {group.shape: group.shape for group in scene.groups}
    others = rng.sample([shape for shape in SHAPES if shape not in shown], 3)
    grounds = rng.sample([name for name in BACKGROUNDS if name != scene.background], 2)
    return Facts(
        _kinds(scene, shown),
        _spots(scene, shown),
        scene.arrangement,
        scene.background,
        tuple(grounds),
        None,
        tuple((name, plural(name)) for name in others),
    )


def renamed_facts(scene: Scene, rng: random.Random) -> Facts:
    """Return the facts of a general scene under made-up names, with a made-up label and stain."""
    names = {group.shape: _new_name(group.shape, rng) for group in scene.groups}
    label = None
    if rng.random() < 0.7:
        label = made_up_word(rng)
        if rng.random() < 0.25:
            label = f"{rng.choice(('normal', 'mild', 'early', 'dense', 'mixed'))} {label}"
    background = made_up_word(rng) if rng.random() < 0.7 else scene.background
    absent = [made_up_word(rng) for _ in range(2)]
    return Facts(
        _kinds(scene, names),
        _spots(scene, names),
        scene.arrangement,
        background,
        tuple(made_up_word(rng) for _ in range(2)),
        label,
        tuple((name, plural(name)) for name in absent),
    )


def told_by(caption: str, facts: Facts) -> Facts:
    """Return the facts without a background that a caption keeps to itself.

    Nobody could read a made-up name from the picture; and who learns to name plain backgrounds by
    sight would name them so in a domain that has names of its own. So neither may be asked about.
    """
    is_told = facts.background is not None and facts.background in caption.lower()
    return facts if is_told else replace(facts, background=None)


def _new_name(shape: str, rng: random.Random) -> str:
    if rng.random() < 0.15:
        head = rng.choice(("cell", "body", "grain", "fibre", "unit", "shape"))
        return f"{made_up_word(rng)} {head}"
    return made_up_word(rng) if rng.random() < 0.9 else shape


def _kinds(scene: Scene, names: dict[str, str]) -> tuple[Kind, ...]:
    return tuple(
        Kind(names[g.shape], plural(names[g.shape]), g.num, g.colour, g.size) for g in scene.groups
    )


def _spots(scene: Scene, names: dict[str, str]) -> tuple[Spot, ...]:
    return tuple(Spot(names[g.shape], g.colour, x, y, scene.radius(g)) for g, x, y in placed(scene))
