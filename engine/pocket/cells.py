"""The new domain: rendered microscopy fields. Names, looks and findings occur nowhere else."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.pocket.canvas import Canvas, Colour, around, fitting_arrangement, places, shaded

if TYPE_CHECKING:
    from PIL.Image import Image

CELL_TYPES = ("velocyte", "torocyte", "spinocyte", "lobucyte", "grannocyte", "bacillocyte")
STAINS: dict[str, tuple[Colour, Colour, Colour]] = {  # field, body, nucleus
    "eoline": ((238, 222, 228), (216, 150, 178), (118, 40, 96)),
    "cyrine": ((220, 232, 234), (138, 186, 200), (30, 72, 120)),
    "ambrine": ((240, 232, 210), (214, 172, 92), (112, 66, 20)),
}
FINDINGS = ("normosis", "velosis", "spinosis", "bacillosis", "plethoria")
RADIUS_PX = 6.2


@dataclass(frozen=True, slots=True)
class Field:
    """What a field shows. `counts` is in order of cell type; absent types are left out."""

    counts: tuple[tuple[str, int], ...]
    arrangement: str
    stain: str
    seed: str

    @property
    def total(self) -> int:
        """The number of all cells."""
        return sum(num for _, num in self.counts)

    @property
    def commonest(self) -> str | None:
        """The type with most cells, or None on a tie."""
        ranked = sorted(self.counts, key=lambda item: -item[1])
        tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
        return None if tied else ranked[0][0]

    @property
    def finding(self) -> str:
        """The finding, by rule: crowding first, then the telling cell types, else normosis."""
        nums = dict(self.counts)
        if self.total >= 7:
            return "plethoria"
        for name, finding in (("bacillocyte", "bacillosis"), ("spinocyte", "spinosis")):
            if nums.get(name):
                return finding
        return "velosis" if nums.get("velocyte", 0) >= 3 else "normosis"


def field(seed: int, split: str, index: int) -> Field:
    """Return field number `index` of a split."""
    name = f"cells:{seed}:{split}:{index}"
    rng = random.Random(name)
    num_types = rng.choice((1, 2, 2))
    total = rng.randint(num_types, 8)
    chosen = sorted(rng.sample(CELL_TYPES, num_types), key=CELL_TYPES.index)
    first = total if num_types == 1 else rng.randint(1, total - 1)
    nums = (first,) if num_types == 1 else (first, total - first)
    arrangement = fitting_arrangement(total, RADIUS_PX, rng)
    stain = rng.choice(tuple(STAINS))
    return Field(tuple(zip(chosen, nums, strict=True)), arrangement, stain, name)


def draw(field: Field) -> Image:
    """Render a field, 64 x 64 pixels."""
    rng = random.Random("draw:" + field.seed)
    background, body, nucleus = STAINS[field.stain]
    canvas = Canvas(shaded(background, rng, 6), rng, noise=50)
    kinds = [name for name, num in field.counts for _ in range(num)]
    rng.shuffle(kinds)
    for name, (x, y) in zip(
        kinds, places(len(kinds), field.arrangement, rng, RADIUS_PX), strict=True
    ):
        _DRAW[name](canvas, x, y, shaded(body, rng, 10), shaded(nucleus, rng, 10), rng)
    return canvas.finished()


def _velocyte(
    canvas: Canvas, x: float, y: float, body: Colour, nucleus: Colour, rng: random.Random
) -> None:
    """Draw a pale body with one dark round nucleus off its centre."""
    turn = rng.uniform(0, 2 * math.pi)
    canvas.disc(x, y, RADIUS_PX, body)
    canvas.disc(x + 2 * math.cos(turn), y + 2 * math.sin(turn), 3.0, nucleus)


def _torocyte(
    canvas: Canvas, x: float, y: float, body: Colour, nucleus: Colour, rng: random.Random
) -> None:
    """Draw a thick dark rim around an empty middle."""
    canvas.ring(x, y, RADIUS_PX, nucleus, 2.2)


def _spinocyte(
    canvas: Canvas, x: float, y: float, body: Colour, nucleus: Colour, rng: random.Random
) -> None:
    """Draw a dark body with spines."""
    turn = rng.uniform(0, 2 * math.pi)
    canvas.polygon(around(x, y, (7.5, 3.6) * 8, turn), nucleus)


def _lobucyte(
    canvas: Canvas, x: float, y: float, body: Colour, nucleus: Colour, rng: random.Random
) -> None:
    """Draw a pale body with a nucleus of three lobes."""
    canvas.disc(x, y, RADIUS_PX, body)
    for px, py in around(x, y, (2.9,) * 3, rng.uniform(0, 2 * math.pi)):
        canvas.disc(px, py, 2.2, nucleus)


def _grannocyte(
    canvas: Canvas, x: float, y: float, body: Colour, nucleus: Colour, rng: random.Random
) -> None:
    """Draw a pale body full of small grains, without a nucleus."""
    canvas.disc(x, y, RADIUS_PX, body)
    for px, py in around(x, y, (4.6, 2.0) * 5, rng.uniform(0, 2 * math.pi)):
        canvas.disc(px, py, 0.9, nucleus)


def _bacillocyte(
    canvas: Canvas, x: float, y: float, body: Colour, nucleus: Colour, rng: random.Random
) -> None:
    """Draw a dark rod with rounded ends."""
    turn = rng.uniform(0, math.pi)
    dx, dy = 5.5 * math.cos(turn), 5.5 * math.sin(turn)
    canvas.line([(x - dx, y - dy), (x + dx, y + dy)], nucleus, 3.4)
    canvas.disc(x - dx, y - dy, 1.7, nucleus)
    canvas.disc(x + dx, y + dy, 1.7, nucleus)


_DRAW = {
    "velocyte": _velocyte,
    "torocyte": _torocyte,
    "spinocyte": _spinocyte,
    "lobucyte": _lobucyte,
    "grannocyte": _grannocyte,
    "bacillocyte": _bacillocyte,
}
