"""What the processes that train one model do together; most trainings have one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from engine.training.masks import Example


class Team(Protocol):
    """One process's view of all of them."""

    @property
    def rank(self) -> int:
        """Return which of the processes this is."""

    @property
    def count(self) -> int:
        """Return how many there are."""

    @property
    def is_split(self) -> bool:
        """Tell whether each holds a part of every tensor, so that all must act together."""

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes files."""

    def agree(self, is_true: Callable[[], bool]) -> bool:
        """Ask the first process; the others get its answer if all must act on it, else no."""

    def micro_batches(self, rows: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
        """Yield this process's share of rows, so many at once."""

    def add_up(self, learning: Sequence[tuple[str, Any]], total: Any, num_halvings: int) -> int:
        """Add gradients and losses of all processes, in place; return the most halvings of one."""

    def total(self, value: Any) -> Any:
        """Return a tensor added up over all processes."""

    def whole(self, tensor: Any) -> Any:
        """Return all of a tensor on the CPU."""

    def like(self, parameter: Any, whole: Any) -> Any:
        """Return a whole CPU tensor as the parameter is held: its device, its part."""


class Alone:
    """The team of one process: nothing to agree on, nothing to add."""

    rank = 0
    count = 1
    is_split = False
    is_first = True

    def agree(self, is_true: Callable[[], bool]) -> bool:
        """Return the answer."""
        return is_true()

    def micro_batches(self, rows: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
        """Yield all rows."""
        return in_pieces(rows, size)

    def add_up(self, learning: Sequence[tuple[str, Any]], total: Any, num_halvings: int) -> int:
        """Return the halvings of this process."""
        return num_halvings

    def total(self, value: Any) -> Any:
        """Return the tensor."""
        return value

    def whole(self, tensor: Any) -> Any:
        """Return a tensor on the CPU."""
        return tensor.detach().cpu().contiguous()

    def like(self, parameter: Any, whole: Any) -> Any:
        """Return a tensor on the parameter's device."""
        return whole.to(parameter.device)


def in_pieces(rows: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    """Yield rows, so many at once."""
    return (rows[first : first + size] for first in range(0, len(rows), size))


ALONE = Alone()
