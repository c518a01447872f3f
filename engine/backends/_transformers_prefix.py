"""The beginning that many prompts share, read once and kept: the few-shot part of a judge's prompt.

Where a beginning is cut depends on the prompts of one call alone, never on what was kept before, so
that the same call gives the same bits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.backends._talk import Prompt

FEWEST = 64  # tokens; a shorter beginning is read again faster than it is copied
STEP = 32  # beginnings are cut at multiples of this, so that calls find each other's
NUM_KEPT = 4


@dataclass(slots=True)
class Prefixes:
    """The beginnings that were used last, each with its keys and values for one row."""

    read: Callable[[tuple[int, ...]], Any]  # tokens -> cache of one row, None if it has no columns
    _kept: OrderedDict[tuple[int, ...], Any] = field(default_factory=OrderedDict)

    def cache(self, tokens: tuple[int, ...], num_rows: int) -> Any:
        """Return a cache of so many rows that begin alike; None where the model cannot."""
        from transformers import DynamicCache

        if tokens not in self._kept:
            self._kept[tokens] = self.read(tokens)
        self._kept.move_to_end(tokens)
        while len(self._kept) > NUM_KEPT:
            self._kept.popitem(last=False)
        found = self._kept[tokens]
        if found is None:
            return None
        return DynamicCache(
            [
                (k.expand(num_rows, -1, -1, -1), v.expand(num_rows, -1, -1, -1))
                for k, v in ((layer.keys, layer.values) for layer in found.layers)
            ]
        )

    def clear(self) -> None:
        """Give the memory back."""
        self._kept.clear()


def shared(prompts: Sequence[Prompt]) -> tuple[int, ...]:
    """Return the tokens with which all prompts begin; empty where it would not pay."""
    if len(prompts) < 2 or any(prompt.digests for prompt in prompts):
        return ()
    first = prompts[0].ids
    length = min(len(prompt.ids) for prompt in prompts) - 1  # something is left to read of each
    for prompt in prompts[1:]:
        differs = (prompt.ids[:length] != first[:length]).nonzero()[0]
        length = int(differs[0]) if len(differs) else length
    length -= length % STEP
    return tuple(int(i) for i in first[:length]) if length >= FEWEST else ()
