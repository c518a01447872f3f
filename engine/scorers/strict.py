"""Our rule book: whole words, no dice, and what cannot be parsed is wrong and counted."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from engine.records import Record
from engine.scorers import Score, Scorer

_CONCLUSION = re.compile(
    r"(?:answer is|answer:|in short:|conclusion:)\s*(.+?)\s*\.?\s*$", re.I | re.S
)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The rule book has no settings."""


def conclusion(answer: str) -> str:
    """Return what follows the last answer marker, or the whole answer."""
    found = _CONCLUSION.search(answer)
    return found.group(1) if found else answer.strip()


def normal(text: str) -> str:
    """Lower-case, without punctuation and articles."""
    words = re.sub(r"[^\w\s.-]", " ", text.lower()).strip(" .").split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def exact(question: Record, answer: str) -> Score:
    """Normalised exact match with any reference."""
    said = normal(conclusion(answer))
    return Score(float(any(said == normal(r) for r in question.references)), said or None)


def closed(question: Record, answer: str) -> Score:
    """Yes or no as a word of its own; both is unparsed."""
    words = set(re.findall(r"\b(yes|no)\b", conclusion(answer).lower()))
    if len(words) != 1:
        return Score(0.0, None)
    (said,) = words
    return Score(float(said == normal(question.references[0])), said)


def count(question: Record, answer: str) -> Score:
    """Compare the only number in the conclusion, in digits or words."""
    text = conclusion(answer).lower()
    found = {int(n) for n in re.findall(r"\d+", text)}
    found |= {_NUMBERS.index(w) for w in re.findall(r"[a-z]+", text) if w in _NUMBERS}
    if len(found) != 1:
        return Score(0.0, None)
    (said,) = found
    wanted = normal(question.references[0])
    return Score(float(str(said) == wanted), str(said))


def choice(question: Record, answer: str) -> Score:
    """Compare the only option named in the conclusion."""
    text = normal(conclusion(answer))
    options = [normal(o) for o in _options(question)]
    named = [o for o in options if re.search(rf"\b{re.escape(o)}\b", text)]
    if len(named) != 1:
        return Score(0.0, None)
    return Score(float(named[0] == normal(question.references[0])), named[0])


def multi_label(question: Record, answer: str) -> Score:
    """F1 of the option names found as whole words, longest first (BENCHMARKS 1.3)."""
    text = f" {normal(answer)} "
    found = set()
    for name in sorted((normal(o) for o in _options(question)), key=len, reverse=True):
        if re.search(rf"\b{re.escape(name)}\b", text):
            found.add(name)
            text = re.sub(rf"\b{re.escape(name)}\b", " ", text)
    wanted = {normal(r) for r in question.references}
    shared = len(found & wanted)
    value = 2 * shared / (len(found) + len(wanted)) if found or wanted else 1.0
    return Score(value, ", ".join(sorted(found)) or None)


def open_(question: Record, answer: str) -> Score:
    """Token F1 with the best reference."""
    said = normal(conclusion(answer)).split()
    return Score(
        max(_f1(said, normal(r).split()) for r in question.references), " ".join(said) or None
    )


def rouge_l(question: Record, answer: str) -> Score:
    """ROUGE-L F with the best reference."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"])
    best = max(scorer.score(r, answer)["rougeL"].fmeasure for r in question.references)
    return Score(best, answer or None)


def _options(question: Record) -> tuple[str, ...]:
    return tuple(question.meta.extra.get("options", ())) or question.references


def _f1(said: list[str], wanted: list[str]) -> float:
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted)) if said and wanted else 0.0


PLUGIN = Scorer(
    version=1,
    metrics={
        "exact": exact,
        "closed": closed,
        "count": count,
        "choice": choice,
        "open": open_,
        "multi_label": multi_label,
        "rouge_l": rouge_l,
    },
)
