"""How long a node will take and how much memory it will want, judged by what it took before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.plan.stage import Node

_OWN = "the same node before"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a node took in an earlier run."""

    recipe: str
    node: str
    stage: str
    wall_s: float
    peak_memory_gb: float


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
    """A number, and where it comes from in a few words: a person must be able to judge it."""

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
    disk_gb: Figure | None = None  # size of its artifact, checkpoints included


def estimate(node: Node, recipe: str, measured: Iterable[Measurement]) -> Estimate | None:
    """Return the latest measurement of this node of this recipe, else of its stage, else None.

    `measured` is in order of time. Changed params are not accounted for: it is what it took last.
    """
    past = [found for found in measured if found.stage == node.stage]
    own = [found for found in past if found.recipe == recipe and found.node == node.id]
    if own:
        return Estimate(own[-1].wall_s, own[-1].peak_memory_gb, _OWN)
    if past:
        return Estimate(past[-1].wall_s, past[-1].peak_memory_gb, f"`{past[-1].node}` before")
    return None
