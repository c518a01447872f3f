"""Drawing of both worlds: one canvas, drawn at twice the size and reduced for soft edges."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE_PX = 64
SCALE = 2

Colour = tuple[int, int, int]


class Canvas:
    """A square picture; positions and radii are in pixels of the finished picture."""

    def __init__(self, background: Colour, rng: random.Random, noise: int) -> None:
        from PIL import Image, ImageDraw

        side = SIDE_PX * SCALE
        self.image = Image.new("RGB", (side, side), background)
        self._draw: Any = ImageDraw.Draw(self.image)
        for _ in range(noise):
            self._speck(background, rng, side)

    def _speck(self, background: Colour, rng: random.Random, side: int) -> None:
        x, y, r = rng.randrange(side), rng.randrange(side), rng.choice((1, 2, 3))
        shade = rng.randint(-18, 18)
        colour = tuple(max(0, min(255, channel + shade)) for channel in background)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def disc(
        self, x: float, y: float, radius: float, colour: Colour, *, stretch: float = 1.0
    ) -> None:
        """Fill an ellipse; `stretch` is width over height."""
        w, h = radius * stretch * SCALE, radius / stretch * SCALE
        self._draw.ellipse(
            (x * SCALE - w, y * SCALE - h, x * SCALE + w, y * SCALE + h), fill=colour
        )

    def ring(self, x: float, y: float, radius: float, colour: Colour, width: float) -> None:
        """Draw a circle line of the given width."""
        r = radius * SCALE
        box = (x * SCALE - r, y * SCALE - r, x * SCALE + r, y * SCALE + r)
        self._draw.ellipse(box, outline=colour, width=max(1, round(width * SCALE)))

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)

    def line(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        """Draw a poly-line."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * SCALE)), joint="curve")

    def finished(self) -> Image:
        """Return the picture at its final size."""
        from PIL import Image

        return self.image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)


def around(x: float, y: float, radii: tuple[float, ...], turn: float) -> list[tuple[float, float]]:
    """Return points around a centre, at the given radii in turn; `turn` rotates, in radians."""
    step = 2 * math.pi / len(radii)
    return [
        (x + r * math.cos(turn + i * step), y + r * math.sin(turn + i * step))
        for i, r in enumerate(radii)
    ]


def shaded(colour: Colour, rng: random.Random, spread: int = 16) -> Colour:
    """Return a colour near the given one."""
    r, g, b = (max(0, min(255, channel + rng.randint(-spread, spread))) for channel in colour)
    return (r, g, b)


ARRANGEMENTS = ("scattered", "clustered", "in a row", "in a ring")


def fitting_arrangement(num: int, radius: float, rng: random.Random) -> str:
    """Choose an arrangement that `num` objects can show without hiding each other."""
    if num < 3:
        return "scattered"
    fits = [a for a in ARRANGEMENTS if a != "in a row" or num * 2 * radius <= SIDE_PX - 4]
    return rng.choice(fits)


def places(
    num: int, arrangement: str, rng: random.Random, radius: float
) -> list[tuple[float, float]]:
    """Return positions inside the picture for `num` objects of about `radius`, as arranged."""
    low, high = radius + 2, SIDE_PX - radius - 2
    if arrangement == "in a row":
        return _row(num, rng, low, high)
    if arrangement == "in a ring":
        return _ring(num, rng, radius)
    if arrangement == "clustered":
        return _packed(num, rng, radius, _cluster_box(rng, num, radius))
    return _packed(num, rng, radius, (low, high, low, high))


def _row(num: int, rng: random.Random, low: float, high: float) -> list[tuple[float, float]]:
    across = rng.uniform(low + 6, high - 6)
    step = min((high - low) / max(num - 1, 1), 14.0)
    start = rng.uniform(low, high - step * (num - 1))
    line = [(start + i * step, across + rng.uniform(-1.5, 1.5)) for i in range(num)]
    return line if rng.random() < 0.5 else [(y, x) for x, y in line]


def _ring(num: int, rng: random.Random, radius: float) -> list[tuple[float, float]]:
    span = SIDE_PX / 2 - radius - 2
    size = rng.uniform(max(14.0, span * 0.8), span)
    c = SIDE_PX / 2
    turn = rng.uniform(0, 2 * math.pi)
    return around(c, c, (size,) * num, turn)


def _cluster_box(rng: random.Random, num: int, radius: float) -> tuple[float, float, float, float]:
    width = min(10 + 2 * radius * math.sqrt(num) * 0.9, SIDE_PX - 2 * radius - 4)
    x = rng.uniform(radius + 2, SIDE_PX - radius - 2 - width + 0.1)
    y = rng.uniform(radius + 2, SIDE_PX - radius - 2 - width + 0.1)
    return (x, x + width, y, y + width)


def _packed(
    num: int, rng: random.Random, radius: float, box: tuple[float, float, float, float]
) -> list[tuple[float, float]]:
    placed: list[tuple[float, float]] = []
    gap = 2 * radius + 1
    while len(placed) < num:
        for _ in range(40):
            x, y = rng.uniform(box[0], box[1]), rng.uniform(box[2], box[3])
            if all((x - a) ** 2 + (y - b) ** 2 >= gap * gap for a, b in placed):
                placed.append((x, y))
                break
        else:
            gap *= 0.9
    return placed
