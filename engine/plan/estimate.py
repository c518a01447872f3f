"""What a node will probably take and make, and what it took before: the types, and the look-up.

Every number carries its basis in words, because a guess without one cannot be judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.plan.stage import Node

_OWN = "the same node before"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a node took and wrote in an earlier run."""

    recipe: str
    node: str
    stage: str
    wall_s: float
    peak_memory_gb: float
    run: str = ""
    counts: Mapping[str, float] = field(default_factory=dict)
    device: str = "cpu"  # cpu or cuda


class Stored(NamedTuple):
    """What is in the store under a key: what was counted, and its size."""

    counts: Mapping[str, float]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a node will probably take, and what the guess stands on."""

    wall_s: float
    peak_memory_gb: float
    basis: str

    @property
    def is_own(self) -> bool:
        """Tell whether this very node of the recipe was measured, and not another of its stage."""
        return self.basis == _OWN


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, and where it comes from in words that a person can judge."""

    value: float
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a node will probably take and make; None where nothing is known."""

    rows: Figure | None = None  # rows that it writes
    images: Figure | None = None  # images that it reads
    tokens: Figure | None = None  # tokens that its model reads and writes
    gpu_memory_gb: Figure | None = None  # at the peak, on one device
    wall_h: Figure | None = None
    cost: Figure | None = None  # hours times devices times their price
    disk_gb: Figure | None = None  # size of its artifact
    note: str = ""  # why numbers are missing


class Past:
    """Measurements by node and by stage; the latest of each counts. Given in order of time."""

    def __init__(self, measured: Iterable[Measurement]) -> None:
        self._of_node: dict[tuple[str, str], Measurement] = {}
        self._of_stage: dict[str, Measurement] = {}
        for found in measured:
            self._of_node[found.recipe, found.node] = found
            self._of_stage[found.stage] = found

    def own(self, node: Node, recipe: str) -> Measurement | None:
        """Return what this very node of this recipe took last."""
        return self._of_node.get((recipe, node.id))

    def alike(self, node: Node, recipe: str) -> Measurement | None:
        """Return what this node took last, else what any node of its stage did."""
        return self.own(node, recipe) or self._of_stage.get(node.stage)


def estimate(node: Node, recipe: str, past: Past) -> Estimate | None:
    """Return the latest measurement of this node of this recipe, else of its stage, else None.

    Changed params are not accounted for: it is what it took last.
    """
    found = past.alike(node, recipe)
    if found is None:
        return None
    basis = _OWN if past.own(node, recipe) is not None else f"`{found.node}` before"
    return Estimate(found.wall_s, found.peak_memory_gb, basis)
