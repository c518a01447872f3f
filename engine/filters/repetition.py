"""Drop records with an assistant text that goes round in circles.

Measured as in Rae et al. 2021, table A1: the share of a text's characters that lie in word 5-grams
which occur more than once; their limit is 0.15. Texts too short to hold a repeated 5-gram pass.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from engine.filters import Decide, Filter, FilterContext, Verdict
from engine.plugin import Between
from engine.records import Record

GRAM_WORDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `repetition`."""

    max_ratio: Annotated[
        float, Between(0, 1), "Largest share of characters in word 5-grams that repeat."
    ] = 0.15


def repeated_ratio(text: str) -> float:
    """Return the share of a text's characters, spaces aside, that lie in repeated 5-grams."""
    words = text.lower().split()
    starts = range(len(words) - GRAM_WORDS + 1)
    grams = Counter(tuple(words[start : start + GRAM_WORDS]) for start in starts)
    repeated = {
        place
        for start in starts
        if grams[tuple(words[start : start + GRAM_WORDS])] > 1
        for place in range(start, start + GRAM_WORDS)
    }
    return sum(len(words[place]) for place in repeated) / max(sum(map(len, words)), 1)


def reason_to_drop(record: Record, params: Params) -> Verdict | None:
    """Say that a text of a record repeats itself."""
    texts = (turn.text for turn in record.turns if turn.role == "assistant")
    ratio = max(map(repeated_ratio, texts), default=0.0)
    return Verdict("repeats itself", f"ratio {ratio:.2f}") if ratio > params.max_ratio else None


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, _: reason_to_drop(record, params)


PLUGIN = Filter(version=1, params=Params, open=open_filter)
