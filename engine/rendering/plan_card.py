"""What every form of a plan shows of a node: its state, why, and numbers as people write them.

A number that stands on an assumption is marked `~`, an upper bound `<=`; one that was counted,
measured, written in the recipe or worked out from the model's config has no mark. The whole basis
goes along for whoever wants it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from engine.plan import graph
from engine.plan.estimate import Figure, Forecast
from engine.plan.stage import Node

COLUMNS = {
    "rows": "rows",
    "images": "images",
    "tokens": "tokens",
    "gpu_memory_gb": "GPU GB",
    "wall_h": "time",
    "cost": "cost",
    "disk_gb": "disk GB",
}
_DUST = 0.01  # gigabytes
CACHED = "cached"  # as in engine.runtime.outlook, which stands above this room
_GUESSES = ("assumed", "of the peak rate")
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Cell(NamedTuple):
    """A number as text, and what it stands on."""

    text: str
    basis: str


class Card(NamedTuple):
    """One node."""

    id: str
    stage: str
    state: str
    reason: str
    parents: tuple[str, ...]
    arms: tuple[str, ...] = ()
    cells: Mapping[str, Cell] = MappingProxyType({})
    note: str = ""

    @property
    def is_cached(self) -> bool:
        """Tell whether nothing has to be done."""
        return self.state == CACHED


def card(node: Node, state: str, reason: str, forecast: Forecast | None) -> Card:
    """Return the card of a planned node."""
    cells = cells_of(forecast) if forecast is not None else {}
    if state == CACHED:  # what it took is spent
        cells = {name: one for name, one in cells.items() if name not in ("wall_h", "cost")}
    note = forecast.note if forecast is not None else ""
    parents = tuple(sorted(graph.parents(node)))
    return Card(node.id, node.stage, state, reason, parents, node.arms, cells, note)


def cells_of(forecast: Forecast) -> dict[str, Cell]:
    """Return the known numbers of a forecast by column."""
    found = ((name, getattr(forecast, name)) for name in COLUMNS)
    return {name: cell(name, figure) for name, figure in found if figure is not None}


def cell(name: str, figure: Figure) -> Cell:
    """Return a number of a column, marked with how sure it is."""
    return Cell(mark(figure.basis) + number(name, figure.value), figure.basis)


def mark(basis: str) -> str:
    """Return `<=` for an upper bound, `~` for an assumption, nothing for a fact."""
    if any(word in basis for word in _GUESSES):
        return "~"
    return "<=" if "at most " in basis else ""


def number(name: str, value: float) -> str:
    """Return a value of a column as a person writes it."""
    if name == "wall_h":
        return span(value)
    if name == "tokens":
        return short(value)
    if name in ("rows", "images"):
        return f"{value:,.0f}"
    if name == "cost":
        return f"{value:,.2f}"
    if value < _DUST:
        return f"<{_DUST}"
    return f"{value:,.1f}" if value >= 0.95 else f"{value:.1g}"


def short(value: float) -> str:
    """Return a large number with a letter: 285M."""
    for size, letter in _UNITS:
        if value >= size:
            shown = value / size
            return f"{shown:.0f}{letter}" if shown >= 10 else f"{shown:.1f}{letter}"
    return f"{value:.0f}"


def span(hours: float) -> str:
    """Return a length of time: `55.5 h`, `12 min`, `0.4 s`."""
    if hours >= 1:
        return f"{hours:.1f} h"
    minutes = hours * 60
    if minutes >= 1:
        return f"{minutes:.0f} min"
    return f"{minutes * 60:.0f} s" if minutes >= 1 / 6 else f"{minutes * 60:.1f} s"


def assumptions(cards: Iterable[Card]) -> list[str]:
    """Return every assumption that some number stands on, each once."""
    clauses = (
        clause.strip()
        for one in cards
        for shown in one.cells.values()
        for clause in shown.basis.split(";")
    )
    assumed = (clause for clause in clauses if clause.startswith("assumed:"))
    return list(dict.fromkeys(assumed))


def used_columns(cards: Sequence[Card]) -> list[str]:
    """Return the columns in which some node has a number, and not a few kilobytes alone."""
    shown = {name: {one.cells[name].text for one in cards if name in one.cells} for name in COLUMNS}
    return [name for name, texts in shown.items() if texts - {f"<{_DUST}"}]


def by_reason(cards: Iterable[Card]) -> dict[str, list[str]]:
    """Return the nodes that will run by why; those that wait for an input are put together."""
    groups: dict[str, list[str]] = {}
    for one in cards:
        if one.is_cached:
            continue
        is_upstream = one.reason.startswith("upstream") and one.reason.endswith("will run")
        reason = "upstream: an input of theirs will run" if is_upstream else one.reason
        groups.setdefault(reason, []).append(one.id)
    return groups
