"""Boards: a picture as one word for each of 4 x 4 squares.

Always asked for in the same words, so that a word keeps its distance to the image token of its
square: the shortest way to teach a small model what each image token shows.
"""

from __future__ import annotations

import math

from engine.pocket.canvas import SIDE_PX
from engine.pocket.facts import Facts, Spot, Task

_ASKED = "Read the board."  # as the template `board@1` says it
_SQUARES = 4


def board(facts: Facts) -> Task:
    """Ask for the kind in each square, row by row, and then for the colours; "no" for nothing."""
    squares = [
        _seen_in(facts, row, column) for row in range(_SQUARES) for column in range(_SQUARES)
    ]
    words = [spot.noun.split()[0] if spot else "no" for spot in squares]
    words += [spot.colour if spot else "no" for spot in squares]
    text = "Board: " + " ".join(words)
    return Task("board", _ASKED, text, text)


def part_of_side(pixels: float, num: int) -> int:
    """Return which of `num` equal parts of the picture's side a coordinate falls into."""
    return min(int(pixels * num / SIDE_PX), num - 1)


def _seen_in(facts: Facts, row: int, column: int) -> Spot | None:
    """Return the object whose centre is in a square or that covers the square's own centre."""
    side = SIDE_PX / _SQUARES
    middle = ((column + 0.5) * side, (row + 0.5) * side)
    found = [
        (math.dist(middle, (spot.x, spot.y)), spot)
        for spot in facts.spots
        if (part_of_side(spot.y, _SQUARES), part_of_side(spot.x, _SQUARES)) == (row, column)
        or math.dist(middle, (spot.x, spot.y)) < spot.radius
    ]
    return min(found, key=lambda one: one[0])[1] if found else None
