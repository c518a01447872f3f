"""Drop pairs whose caption is too short to make a task of, or too long to be one caption.

Words are counted by `engine.wording.num_words`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from engine.filters import Decide, Filter, FilterContext, Verdict
from engine.plugin import AtLeast
from engine.records import Record
from engine.wording import num_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `caption_length`."""

    min_words: Annotated[int, AtLeast(0), "Fewest words of a caption."] = 1
    max_words: Annotated[int | None, AtLeast(1), "Most words of a caption."] = None


def reason_to_drop(record: Record, params: Params) -> Verdict | None:
    """Say why a caption's length disqualifies its record."""
    length = num_words(record.caption)
    if length < params.min_words:
        return Verdict("caption too short", f"{length} words")
    if params.max_words is not None and length > params.max_words:
        return Verdict("caption too long", f"{length} words")
    return None


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, _: reason_to_drop(record, params)


PLUGIN = Filter(version=1, params=Params, open=open_filter)
