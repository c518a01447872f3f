"""Places the nodes of a plan on a page: a column per depth, rows ordered to cross few lines.

Sugiyama et al. 1981, in its simplest form: longest-path layers and a few barycentre sweeps. Lines
that others imply are left out, or a report would be joined to everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.rendering import plan_card
from engine.rendering.plan_card import Card

BOX_PX, ROW_PX, GAP_PX, MARGIN_PX = 204, 54, 48, 12
HEIGHT_PX = 40
_SWEEPS = 6


@dataclass(frozen=True, slots=True)
class Box:
    """One node on the page."""

    card: Card
    x: int
    y: int

    @property
    def title(self) -> str:
        """Return the id, cut to the width of the box."""
        name = self.card.id.removeprefix("evaluate.")
        return name if len(name) <= 30 else f"{name[:29]}\N{HORIZONTAL ELLIPSIS}"

    @property
    def subtitle(self) -> str:
        """Return the numbers that matter most."""
        cells = self.card.cells
        words = (("rows", "rows"), ("gpu_memory_gb", "GB"), ("wall_h", ""))
        shown = [f"{_brief(cells[n].text)} {said}".strip() for n, said in words if n in cells]
        return " \N{MIDDLE DOT} ".join(shown)


def _brief(text: str) -> str:
    """Write a count of five digits or more with a letter: a box is narrow."""
    digits = text.lstrip("<=~")
    plain = digits.replace(",", "")
    if not plain.isdigit() or len(plain) < 5:
        return text
    return text[: len(text) - len(digits)] + plan_card.short(float(plain))


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes and the curves between them."""

    boxes: tuple[Box, ...]
    curves: tuple[str, ...]  # SVG paths
    width: int
    height: int
    box_width: int = BOX_PX
    box_height: int = HEIGHT_PX


def layout(cards: Sequence[Card]) -> Drawing:
    """Return where everything is."""
    parents = _direct_parents(cards)
    depths = _depths(cards, parents)
    columns = _ordered(cards, parents, depths)
    tallest = max((len(column) for column in columns), default=0)
    height = 2 * MARGIN_PX + tallest * ROW_PX
    of = {one.id: one for one in cards}
    boxes = {}
    for depth, column in enumerate(columns):
        top = (height - len(column) * ROW_PX) // 2
        for row, name in enumerate(column):
            x = MARGIN_PX + depth * (BOX_PX + GAP_PX)
            boxes[name] = Box(of[name], x, top + row * ROW_PX + (ROW_PX - HEIGHT_PX) // 2)
    curves = [_curve(boxes[parent], boxes[one.id]) for one in cards for parent in parents[one.id]]
    width = 2 * MARGIN_PX + len(columns) * (BOX_PX + GAP_PX) - GAP_PX
    return Drawing(tuple(boxes[one.id] for one in cards), tuple(curves), width, height)


def _direct_parents(cards: Sequence[Card]) -> dict[str, tuple[str, ...]]:
    """Return the parents of each node that are not ancestors of its other parents."""
    ancestors: dict[str, frozenset[str]] = {}
    direct = {}
    for one in cards:
        known = [parent for parent in one.parents if parent in ancestors]
        implied = frozenset().union(*(ancestors[parent] for parent in known))
        direct[one.id] = tuple(parent for parent in known if parent not in implied)
        ancestors[one.id] = implied.union(known)
    return direct


def _depths(cards: Sequence[Card], parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the column of each node; each stands just before the first that reads it."""
    depths: dict[str, int] = {}
    for one in cards:
        depths[one.id] = 1 + max((depths[parent] for parent in parents[one.id]), default=-1)
    children: dict[str, list[str]] = {one.id: [] for one in cards}
    for one in cards:
        for parent in parents[one.id]:
            children[parent].append(one.id)
    for one in reversed(cards):
        if children[one.id]:
            depths[one.id] = min(depths[child] for child in children[one.id]) - 1
    return depths


def _ordered(
    cards: Sequence[Card], parents: Mapping[str, Sequence[str]], depths: Mapping[str, int]
) -> list[list[str]]:
    columns: list[list[str]] = [[] for _ in range(max(depths.values(), default=-1) + 1)]
    for one in cards:
        columns[depths[one.id]].append(one.id)
    neighbours: dict[str, list[str]] = {one.id: list(parents[one.id]) for one in cards}
    for one in cards:
        for parent in parents[one.id]:
            neighbours[parent].append(one.id)
    for sweep in range(_SWEEPS):
        places = {
            name: (row + 0.5) / len(column) for column in columns for row, name in enumerate(column)
        }
        for column in columns if sweep % 2 == 0 else reversed(columns):
            column.sort(key=lambda name: _middle(neighbours[name], places, places[name]))
            places |= {name: (row + 0.5) / len(column) for row, name in enumerate(column)}
    return columns


def _middle(names: Sequence[str], places: Mapping[str, float], default: float) -> float:
    return sum(places[name] for name in names) / len(names) if names else default


def _curve(start: Box, end: Box) -> str:
    x1, y1 = start.x + BOX_PX, start.y + HEIGHT_PX // 2
    x2, y2 = end.x, end.y + HEIGHT_PX // 2
    bend = max((x2 - x1) // 2, 16)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
