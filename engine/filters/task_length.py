"""Drop tasks whose instruction or answers are too short or too long, or whose answers are swapped.

A precise answer states the conclusion of the informative one (Cheng et al. 2024, table 1), so one
that is longer has no conclusion, or the two were exchanged. Words as in `caption_length`.
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
    """Settings of the filter `task_length`, in words."""

    min_instruction_words: Annotated[int, AtLeast(0), "Fewest words of the instruction."] = 2
    max_instruction_words: Annotated[int | None, AtLeast(1), "Most words of the instruction."] = 100
    min_informative_words: Annotated[int, AtLeast(0), "Fewest words of the long answer."] = 3
    max_informative_words: Annotated[int | None, AtLeast(1), "Most words of the long answer."] = 400
    max_precise_words: Annotated[int | None, AtLeast(1), "Most words of the short answer."] = 60
    longer_precise: Annotated[bool, "Let a short answer pass that is longer than the long one."] = (
        False
    )


def reason_to_drop(record: Record, params: Params) -> Verdict | None:
    """Say which text of a task has the wrong length."""
    instruction = num_words(record.instruction)
    informative = num_words(record.answer("informative"))
    precise = num_words(record.answer("precise"))
    for name, length, least, most in (
        ("instruction", instruction, params.min_instruction_words, params.max_instruction_words),
        ("informative", informative, params.min_informative_words, params.max_informative_words),
        ("precise", precise, 1, params.max_precise_words),
    ):
        if length < least:
            return Verdict(f"{name} too short", f"{length} words")
        if most is not None and length > most:
            return Verdict(f"{name} too long", f"{length} words")
    if precise > informative and not params.longer_precise:
        return Verdict("precise longer than informative", f"{precise} and {informative} words")
    return None


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, _: reason_to_drop(record, params)


PLUGIN = Filter(version=1, params=Params, open=open_filter)
