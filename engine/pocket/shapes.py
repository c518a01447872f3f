"""The general world: plain shapes with a colour and a size, for pre-training the base MLLM."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.pocket.canvas import Canvas, Colour, around, fitting_arrangement, places, shaded

if TYPE_CHECKING:
    from PIL.Image import Image

SHAPES = (
    "circle",
    "square",
    "triangle",
    "ring",
    "star",
    "cross",
    "diamond",
    "crescent",
    "bar",
    "dotted disc",
    "flower",
    "double disc",
)
COLOURS: dict[str, Colour] = {
    "red": (205, 50, 45),
    "green": (50, 150, 70),
    "blue": (50, 90, 200),
    "yellow": (230, 200, 50),
    "purple": (140, 70, 170),
    "orange": (235, 135, 40),
    "white": (245, 245, 245),
    "black": (25, 25, 30),
    "pink": (240, 150, 185),
    "brown": (125, 80, 50),
}
BACKGROUNDS: dict[str, Colour] = {
    "grey": (150, 150, 150),
    "pale": (225, 222, 212),
    "dark": (60, 62, 70),
    "bluish": (170, 195, 215),
    "sandy": (215, 195, 155),
    "rosy": (225, 195, 205),
}
SIZES = {"small": 4.6, "large": 7.2}  # radii in pixels
CLOSE_UPS = {1: 2.0, 2: 1.7, 3: 1.4, 4: 1.2}  # how much larger a medley draws few objects
MAX_OBJECTS = 8


@dataclass(frozen=True, slots=True)
class Group:
    """Some objects of one kind."""

    shape: str
    colour: str
    size: str
    num: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows; everything that may be asked follows from it."""

    groups: tuple[Group, ...]  # kinds differ in shape
    arrangement: str
    background: str
    seed: str
    zoom: float = 1.0

    @property
    def total(self) -> int:
        """The number of all objects."""
        return sum(group.num for group in self.groups)

    def radius(self, group: Group) -> float:
        """Return the radius of a group's objects, in pixels."""
        return SIZES[group.size] * self.zoom


def scene(seed: int, split: str, index: int) -> Scene:
    """Return scene number `index` of a split."""
    name = f"shapes:{seed}:{split}:{index}"
    rng = random.Random(name)
    num_groups = rng.choice((1, 1, 2, 2, 2, 3))
    shapes = rng.sample(SHAPES, num_groups)
    left = rng.randint(num_groups, MAX_OBJECTS)
    groups = []
    for position, shape in enumerate(shapes):
        rest = num_groups - position - 1
        num = left - rest if rest == 0 else rng.randint(1, left - rest)
        left -= num
        groups.append(Group(shape, rng.choice(tuple(COLOURS)), rng.choice(tuple(SIZES)), num))
    return _arranged(groups, name, rng, zoom=1.0)


def medley(seed: int, split: str, index: int) -> Scene:
    """Return a scene whose objects have nothing in common, so that no one tells about another."""
    name = f"medley:{seed}:{split}:{index}"
    rng = random.Random(name)
    groups = [
        Group(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), rng.choice(tuple(SIZES)), 1)
        for _ in range(rng.randint(1, MAX_OBJECTS))
    ]
    return _arranged(groups, name, rng, zoom=CLOSE_UPS.get(len(groups), 1.0))


def _arranged(groups: Sequence[Group], name: str, rng: random.Random, *, zoom: float) -> Scene:
    largest = max(SIZES[group.size] for group in groups) * zoom
    arrangement = fitting_arrangement(sum(g.num for g in groups), largest, rng)
    return Scene(tuple(groups), arrangement, rng.choice(tuple(BACKGROUNDS)), name, zoom)


def placed(scene: Scene) -> tuple[tuple[Group, float, float], ...]:
    """Return every object of a scene with its centre, in pixels from the top left corner."""
    rng = random.Random("place:" + scene.seed)
    kinds = [group for group in scene.groups for _ in range(group.num)]
    rng.shuffle(kinds)
    largest = max(scene.radius(group) for group in scene.groups)
    spots = places(len(kinds), scene.arrangement, rng, largest)
    return tuple((group, x, y) for group, (x, y) in zip(kinds, spots, strict=True))


def draw(scene: Scene) -> Image:
    """Render a scene, 64 x 64 pixels."""
    rng = random.Random("draw:" + scene.seed)
    canvas = Canvas(shaded(BACKGROUNDS[scene.background], rng, 10), rng, noise=40)
    for group, x, y in placed(scene):
        radius = scene.radius(group) * rng.uniform(0.9, 1.1)
        _draw_one(canvas, group.shape, x, y, radius, shaded(COLOURS[group.colour], rng), rng)
    return canvas.finished()


def _draw_one(
    canvas: Canvas, shape: str, x: float, y: float, r: float, colour: Colour, rng: random.Random
) -> None:
    turn = rng.uniform(0, 2 * math.pi)
    dark: Colour = tuple(int(c * 0.45) for c in colour)  # type: ignore[assignment]
    if shape == "circle":
        canvas.disc(x, y, r, colour)
    elif shape == "ring":
        canvas.ring(x, y, r, colour, r * 0.35)
    elif shape == "bar":
        dx, dy = r * 1.2 * math.cos(turn), r * 1.2 * math.sin(turn)
        canvas.line([(x - dx, y - dy), (x + dx, y + dy)], colour, r * 0.55)
    elif shape == "cross":
        for angle in (turn, turn + math.pi / 2):
            dx, dy = r * math.cos(angle), r * math.sin(angle)
            canvas.line([(x - dx, y - dy), (x + dx, y + dy)], colour, r * 0.45)
    elif shape == "crescent":
        points = around(x, y, (r,) * 20, turn)[:13]
        back = around(x, y, (r * 0.75,) * 20, turn)[:13]
        canvas.polygon(
            points
            + [
                ((px + x) / 2 + (px - x) * 0.1, (py + y) / 2 + (py - y) * 0.1)
                for px, py in reversed(back)
            ],
            colour,
        )
    elif shape == "dotted disc":
        canvas.disc(x, y, r, colour)
        for px, py in around(x, y, (r * 0.55,) * 5, turn):
            canvas.disc(px, py, r * 0.17, dark)
    elif shape == "double disc":
        canvas.disc(x, y, r, colour)
        canvas.disc(x, y, r * 0.45, dark)
    elif shape == "flower":
        for px, py in around(x, y, (r * 0.6,) * 5, turn):
            canvas.disc(px, py, r * 0.42, colour)
    else:
        sides = {
            "square": (r * 1.1,) * 4,
            "triangle": (r * 1.15,) * 3,
            "star": (r * 1.2, r * 0.5) * 5,
            "diamond": (r * 1.25, r * 0.7) * 2,
        }
        fixed = {
            "square": math.pi / 4 + rng.uniform(-0.2, 0.2),
            "diamond": math.pi / 2 + rng.uniform(-0.2, 0.2),
        }
        canvas.polygon(around(x, y, sides[shape], fixed.get(shape, turn)), colour)
