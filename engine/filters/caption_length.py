"""Drop pairs whose caption is too short to make a task of, or too long to be one caption.

Words are runs of letters or digits. Text in a script without spaces (Chinese, Japanese, Thai)
counts one word per two characters, about what its words measure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from engine.filters import Decide, Filter, FilterContext, Verdict
from engine.plugin import AtLeast
from engine.records import Record

# Hiragana, katakana, CJK ideographs and Thai.
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `caption_length`."""

    min_words: Annotated[int, AtLeast(0), "Fewest words of a caption."] = 1
    max_words: Annotated[int | None, AtLeast(1), "Most words of a caption."] = None


def num_words(text: str) -> int:
    """Count words, also in scripts that do not separate them."""
    num_unspaced = len(_UNSPACED.findall(text))
    return len(_WORD.findall(_UNSPACED.sub(" ", text))) + (num_unspaced + 1) // 2


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
