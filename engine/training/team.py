"""What the processes that train one model do together; most trainings have one process.

Gradients are added up over the processes, never averaged: a step's loss is the mean over all its
trained tokens, whoever had them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")


class Team(Protocol):
    """One process's view of all of them."""

    rank: int
    count: int
    is_split: bool  # each holds a part of every tensor, and all must do everything together

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes files."""

    def agree(self, is_true: Callable[[], bool]) -> bool:
        """Ask the first process; the others get its answer if all must act on it, else no."""

    def whole(self, tensor: Any) -> Any:
        """Return all of a tensor on the CPU."""

    def like(self, parameter: Any, whole: Any) -> Any:
        """Return a whole CPU tensor as the parameter is held: its device, its part."""


class Alone:
    """The team of one process: nothing to agree on, nothing to send."""

    rank = 0
    count = 1
    is_split = False
    is_first = True

    def agree(self, is_true: Callable[[], bool]) -> bool:
        """Return the answer."""
        return is_true()

    def whole(self, tensor: Any) -> Any:
        """Return a tensor on the CPU."""
        return tensor.detach().cpu().contiguous()

    def like(self, parameter: Any, whole: Any) -> Any:
        """Return a tensor on the parameter's device."""
        return whole.to(parameter.device)

    def add_up(self, learning: Sequence[tuple[str, Any]], total: Any, num_halvings: int) -> int:
        """Return the number of halvings: there is nobody to add gradients of."""
        return num_halvings


ALONE = Alone()
