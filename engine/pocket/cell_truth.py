"""Is a generated task true of its field? Decides the question forms of the seed grammar.

Used to publish the share of true tasks before and after the filter. What cannot be decided (open
questions, facts that a field does not have) is None and counts for neither.
"""

from __future__ import annotations

import re

from engine.pocket.canvas import ARRANGEMENTS
from engine.pocket.cells import CELL_TYPES, FINDINGS, STAINS, Field
from engine.pocket.shapes import COLOURS
from engine.pocket.words import NUMBERS

SEEN_AS = {  # the general world's colour words that fit cells under a stain
    "eoline": ("pink", "purple"),
    "cyrine": ("blue",),
    "ambrine": ("orange", "yellow", "brown"),
}


def is_true(field: Field, instruction: str, precise: str) -> bool | None:
    """Tell whether the precise answer to an instruction is true of a field; None: undecidable."""
    question, answer = instruction.lower().strip(), precise.lower().strip().rstrip(".")
    asked = [name for name in CELL_TYPES if name in question]
    if answer in ("yes", "no"):
        return _presence(field, question, asked, answer)
    if answer.isdigit() or answer in NUMBERS:
        return _count(field, question, asked, answer)
    for names, truth in ((tuple(STAINS), field.stain), (FINDINGS, field.finding)):
        if answer in names:
            return answer == truth
    if answer in ARRANGEMENTS:
        return answer == field.arrangement if field.total >= 3 else None
    if answer in COLOURS and "colour" in question:
        return answer in SEEN_AS[field.stain]
    singular = answer.removesuffix("s")
    if singular in CELL_TYPES:
        return _named(field, question, singular)
    return False if _names_something(question) else None


def _presence(field: Field, question: str, asked: list[str], answer: str) -> bool | None:
    shown = {name for name, _ in field.counts}
    if asked:
        return (asked[0] in shown) == (answer == "yes")
    if re.match(r"(are|is|do|does)\b", question):
        return answer == "no"  # a thing that no field ever holds
    return None


def _count(field: Field, question: str, asked: list[str], answer: str) -> bool | None:
    number = int(answer) if answer.isdigit() else NUMBERS.index(answer)
    if asked:
        return dict(field.counts).get(asked[0], 0) == number
    if "total" in question or "in all" in question or "object" in question or "cells" in question:
        return field.total == number
    return False if "number" in question or "how many" in question else None


def _named(field: Field, question: str, name: str) -> bool:
    asks_most = any(word in question for word in ("most", "common", "domina", "frequent", "main"))
    if asks_most or "more" in question:
        return _beats_the_rest(field, name)
    return name in dict(field.counts)


def _beats_the_rest(field: Field, name: str) -> bool:
    nums = dict(field.counts)
    return nums.get(name, 0) > max((num for other, num in nums.items() if other != name), default=0)


def _names_something(question: str) -> bool:
    words = ("which", "what", "name", "stain", "finding", "diagnosis", "impression", "choose")
    return any(word in question for word in words)
