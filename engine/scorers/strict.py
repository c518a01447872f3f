"""Our rule book: whole words, no dice, and what cannot be parsed scores 0 and is counted.

What it mends in published evaluators is listed in BENCHMARKS 1.3: substring yes/no, recall that
grows with repetition, random options. How an answer is read is in `engine.wording`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from engine.records import Record
from engine.scorers import Metric, Score, Scorer
from engine.wording import (
    conclusion,
    core,
    named,
    normal,
    numbers,
    option_key,
    options,
    plain,
    readings,
    without_bullets,
)

UNPARSED = Score(0.0, None)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VERDICT = re.compile(r"\b(yes|no)\b(?=(\s+(?!and\b|or\b|yes\b|no\b)\w)?)")
_WHOLE_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:)]?")
_MARKED_LETTER = re.compile(
    r"\(([A-Za-z])\)|^([A-Z])[.:),](?:\s|$)|\b(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+([A-Z])\b"
)


def open_ended(question: Record, answer: str) -> Score:
    """Token F1 of the conclusion with its nearest reference; recall is of the whole answer."""
    said = core(conclusion(answer))
    if not said:
        return Score(0.0, None, {"recall": 0.0, "exact": 0.0})
    wanted = [core(reference) for reference in question.references]
    everything = normal(plain(answer)).split()
    extra = {
        "recall": max(_recall(everything, text.split()) for text in wanted),
        "exact": exact(question, answer).value,
    }
    return Score(max(_f1(said.split(), text.split()) for text in wanted), said, extra)


def exact(question: Record, answer: str) -> Score:
    """Match the conclusion, or the whole answer, with a reference in normal form."""
    said = [core(reading) for reading in readings(answer)]
    if not said[0]:
        return UNPARSED
    wanted = {core(reference) for reference in question.references}
    return Score(float(bool(wanted.intersection(said))), said[0])


def closed(question: Record, answer: str) -> Score:
    """Match yes or no; a reference that is neither is matched as a choice or word for word."""
    wanted = normal(question.references[0])
    if wanted not in ("yes", "no"):
        return choice(question, answer)
    said = next((found for text in readings(answer) if (found := _verdict(text))), None)
    return _match(said if said in ("yes", "no") else None, wanted)


def choice(question: Record, answer: str) -> Score:
    """Match the one option that the answer names by letter or text."""
    names = options(question)
    wanted = _option_of(question.references[0], names)
    if wanted is None:
        return _letter(question, answer) if not names else exact(question, answer)
    said = next((found for text in readings(answer) if (found := _chosen(text, names))), None)
    return _match(said, names[wanted])


def class_name(question: Record, answer: str) -> Score:
    """Match the one class that the answer names in whole words, longer names first."""
    names = options(question)
    wanted = option_key(question.references[0])
    if wanted not in names:
        return exact(question, answer)
    found = (named(names, text) for text in readings(answer))
    said = next(filter(None, found), [])
    return _match(said[0] if len(said) == 1 else None, wanted)


def count(question: Record, answer: str) -> Score:
    """Match the only number of the conclusion, in digits or words."""
    wanted = numbers(question.references[0])
    if len(wanted) != 1:
        return exact(question, answer)
    said = next((found for text in readings(answer) if (found := numbers(text))), [])
    if len(said) != 1:
        return UNPARSED
    return Score(float(said == wanted), f"{said[0]:g}")


def multi_label(question: Record, answer: str) -> Score:
    """F1 of the labels named; without options, of the items of a list."""
    wanted = {normal(reference) for reference in question.references} - {""}
    names = options(question)
    text = conclusion(answer)
    said = set(named(names, text)) if names else _items(text)
    if not said:
        return Score(1.0, "") if not wanted and normal(text) else UNPARSED
    shared = len(said & wanted)
    extra = {"recall": shared / len(wanted) if wanted else 1.0, "precision": shared / len(said)}
    return Score(2 * shared / (len(said) + len(wanted)), "; ".join(sorted(said)), extra)


def rouge_l(question: Record, answer: str) -> Score:
    """ROUGE-L F of the whole answer with its nearest reference (Google's implementation)."""
    text = plain(answer)
    if not normal(text):
        return UNPARSED
    scorer = _rouge_scorer()
    scores = [scorer.score(reference, text)["rougeL"] for reference in question.references]
    best = max(scores, key=lambda score: score.fmeasure)
    extra = {"recall": best.recall, "precision": best.precision}
    if len(scores) > 1:  # which reference counts moves the figure most of all: BENCHMARKS 1.3
        extra["first"] = scores[0].fmeasure
        extra["mean"] = sum(score.fmeasure for score in scores) / len(scores)
    return Score(best.fmeasure, text, extra)


def _letter(question: Record, answer: str) -> Score:
    """Match a letter whose options stand in the question alone."""
    wanted = question.references[0].strip()
    if not re.fullmatch("[A-Z]", wanted):
        return exact(question, answer)
    found = (_letters(text) for text in readings(answer))
    said = [_LETTERS[place] for place in next(filter(None, found), set())]
    return _match(said[0] if len(said) == 1 else None, wanted)


def _match(said: str | None, wanted: str) -> Score:
    return UNPARSED if said is None else Score(float(said == wanted), said)


def _verdict(text: str) -> str | None:
    """Return yes, no, "both" for a contradiction, or None.

    A "no" before a noun ("no doubt") counts only where no other yes or no stands.
    """
    found = [(word, bool(follows)) for word, follows in _VERDICT.findall(text.lower())]
    verdicts = {word for word, is_before_word in found if word == "yes" or not is_before_word}
    verdicts = verdicts or {word for word, _ in found}
    return ("both" if len(verdicts) > 1 else verdicts.pop()) if verdicts else None


def _chosen(text: str, names: Sequence[str]) -> str | None:
    """Return the one option that a text names; None for none, several, or a contradiction."""
    mentioned = named(names, text)
    if option_key(text) in names:
        return option_key(text)
    by_letter = {names[i] for i in _letters(text) if i < len(names)}
    if len(by_letter) > 1 or (not by_letter and len(mentioned) != 1):
        return None
    chosen = by_letter.pop() if by_letter else mentioned[0]
    return chosen if not mentioned or chosen in mentioned else None


def _letters(text: str) -> set[int]:
    whole = _WHOLE_LETTER.fullmatch(text.strip())
    found = [whole.group(1)] if whole else ["".join(m) for m in _MARKED_LETTER.findall(text)]
    return {_LETTERS.index(letter.upper()) for letter in found}


def _option_of(reference: str, names: Sequence[str]) -> int | None:
    """Return which option a reference means: its text, its letter, or "B. text"."""
    if option_key(reference) in names:
        return names.index(option_key(reference))
    places = {place for place in _letters(reference) if place < len(names)}
    return places.pop() if len(places) == 1 else None


def _items(text: str) -> set[str]:
    pieces = re.split(r"[,;\n\[\]]|\band\b", without_bullets(text))
    return {core(piece) for piece in pieces} - {""}


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    return 2 * _shared(said, wanted) / (len(said) + len(wanted)) if said and wanted else 0.0


def _recall(said: Sequence[str], wanted: Sequence[str]) -> float:
    return _shared(said, wanted) / len(wanted) if wanted else 0.0


def _shared(said: Sequence[str], wanted: Sequence[str]) -> int:
    return sum((Counter(said) & Counter(wanted)).values())


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


METRICS: dict[str, Metric] = {
    "open": open_ended,
    "exact": exact,
    "closed": closed,
    "choice": choice,
    "class_name": class_name,
    "count": count,
    "short_answer": count,
    "multi_label": multi_label,
    "ingredients": multi_label,  # F1 here: recall alone pays for naming everything
    "rouge_l": rouge_l,
}

PLUGIN = Scorer(version=4, metrics=METRICS)
