"""Drop tasks whose precise answer stands in the instruction: there is nothing to be looked at.

Compared word by word in normal form ("two" is "2", articles do not count). A question that offers
its options ("red or green?") must hold the answer, and so must one that is answered by Yes or No;
both pass. So does a number that is part of the question for another reason only when it is longer
than `min_words` asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from engine.filters import Decide, Filter, FilterContext, Verdict
from engine.plugin import AtLeast
from engine.records import Record
from engine.wording import core, normal

_CHOICE = re.compile(
    r"\bor\b|\beither\b|\b(?:options?|choices?|choose|select|categories)\b|(?:^|\s)\(?[A-D][.):]\s",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `answer_in_question`."""

    min_words: Annotated[
        int, AtLeast(1), "Fewest words of an answer that may not stand in its question."
    ] = 1


def reason_to_drop(record: Record, params: Params) -> Verdict | None:
    """Say that a question gives its answer away."""
    answer = core(record.answer("precise"))
    if answer in ("yes", "no") or len(answer.split()) < params.min_words:
        return None
    question = record.instruction
    if _CHOICE.search(question) or record.meta.extra.get("options"):
        return None
    if answer and f" {answer} " in f" {normal(question)} ":
        return Verdict("answer stands in the question", answer)
    return None


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, _: reason_to_drop(record, params)


PLUGIN = Filter(version=1, params=Params, open=open_filter)
