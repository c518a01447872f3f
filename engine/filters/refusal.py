"""Drop tasks in which the generator refuses, or speaks of itself instead of the image.

The phrases are those by which chat models begin to decline; they count in the first sentence of an
answer, or where they speak of an AI or of an image that was not given. "The label says 'I cannot
swim'" is no refusal. English only, like the prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.filters import Decide, Filter, FilterContext, Verdict
from engine.records import Record

_I_CANNOT = r"I(?:\s+am|['\u2019]m)?\s+(?:sorry|unable|not\s+able|afraid)\b"
_OPENING = re.compile(
    rf"""^\W*(?:
        {_I_CANNOT}
      | sorry\b[,.!]
      | I\s+(?:can\s*not|can['\u2019]t|cannot|won['\u2019]t|will\s+not|do\s+not|don['\u2019]t)\s+
        (?:see|view|access|open|determine|identify|answer|provide|help|assist|tell|have|comply)\b
      | (?:unfortunately|apologies|my\s+apologies)\b
      | it\s+is\s+not\s+possible\s+to\s+(?:determine|answer|tell|say|identify)\b
      | there\s+is\s+no\s+image\b
      | no\s+image\s+(?:was|is|has\s+been)\s+(?:provided|attached|given|visible)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_ANYWHERE = re.compile(
    r"""\bas\s+an?\s+(?:AI|artificial\s+intelligence|(?:large\s+)?language\s+model|AI\s+assistant)\b
      | \bI\s+(?:am|['\u2019]m)\s+(?:just\s+)?an?\s+(?:AI|language\s+model)\b
      | \b(?:provide|upload|share|attach)\s+(?:the|an|a\s+clear(?:er)?)\s+image\b
      | \bwithout\s+(?:seeing|access\s+to|being\s+able\s+to\s+see)\s+the\s+(?:actual\s+)?image\b
      | \bmy\s+(?:training\s+data|knowledge\s+cutoff)\b""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The filter `refusal` has no settings."""


def reason_to_drop(record: Record, params: Params) -> Verdict | None:
    """Say that a text of a task refuses, and with which words."""
    for style in ("informative", "precise"):
        text = record.answer(style)
        found = _OPENING.search(text) or _ANYWHERE.search(text)
        if found is not None:
            return Verdict(f"{style} answer refuses", found.group(0).strip())
    found = _ANYWHERE.search(record.instruction)
    return None if found is None else Verdict("instruction refuses", found.group(0).strip())


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, _: reason_to_drop(record, params)


PLUGIN = Filter(version=1, params=Params, open=open_filter)
