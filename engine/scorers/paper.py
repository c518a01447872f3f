"""The published evaluators of AdaMLLM and LLaVA-Med, quirks and all, written from BENCHMARKS 1.3.

For comparison with published tables, never for a claim: "normal" holds a "no", repetition raises
recall, and an option that cannot be read is drawn at random (here by a seed of the item's own, and
marked with `guessed`; the published draw depends on the order of all items). ROUGE-L is that of the
package `rouge` 1.0.1, which is another number than Google's.

The evaluator of the remote sensing tasks was never released. For them stands here the nearest rule
that was: classes as in Food101, other answers by the second half of `closed`, captions by the best
of their references (with the first alone, published figures would be out of reach: BENCHMARKS 1.3).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from engine.diagnostics import StageError
from engine.records import Record
from engine.scorers import Metric, Score, Scorer

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_CONTRACTED = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
    how'll how's i'm i've isn't it'd it'll let's might've must've mustn't o'clock shan't should've
    shouldn't that's there's they'd they'll they're they've wasn't we've weren't what'll what's
    where's who'd who'll who's won't would've wouldn't y'all you'd you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _CONTRACTED.split()}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERS_OF_FOUR = ("A", "B", "C", "D")
_NO_LABELS = {"background", "other ingredients"}  # of FoodSeg103; published scores leave them out
_MIN_CHARS_FOR_TEXT = 5  # an answer must be longer for its option texts to be looked up


def open_ended(question: Record, answer: str) -> Score:
    """Recall whose hits are counted in the answer, so that repeating a right word raises it."""
    said, wanted = Counter(clean(answer).split()), Counter(clean(question.references[0]).split())
    hits = sum(said[word] for word in wanted)
    missed = sum(number for word, number in wanted.items() if word not in said)
    return Score(hits / (hits + missed) if hits + missed else 0.0, clean(answer))


def closed(question: Record, answer: str) -> Score:
    """Right if the answer holds the letters of yes or no, and those of the reference."""
    said = clean(answer)
    found = [word for word in ("yes", "no") if word in said]
    is_right = bool(found) and clean(question.references[0]) in said
    return Score(float(is_right), " ".join(found) or None)


def contained(question: Record, answer: str) -> Score:
    """Right if the answer holds the letters of the reference."""
    said = clean(answer)
    return Score(float(clean(question.references[0]) in said), said or None)


def choice(question: Record, answer: str) -> Score:
    """Take the last "(B)", else the last " B ", else the last option text, else a random option."""
    texts = _texts(question)
    keys = _LETTERS if len(texts) <= len(_LETTERS) else _numbers(texts)
    return _chosen(question, answer, dict(zip(keys, texts, strict=False)))


def class_name(question: Record, answer: str) -> Score:
    """Read an answer as `choice` does, with numbers in place of letters: 1 in it is class 1."""
    texts = _texts(question)
    return _chosen(question, answer, dict(zip(_numbers(texts), texts, strict=True)))


def _chosen(question: Record, answer: str, names: Mapping[str, str]) -> Score:
    said = _last_hit(answer, names)
    is_guess = said is None
    if said is None:
        said = random.Random(question.id).choice(list(names))
    wanted = question.references[0].strip()
    right = wanted if wanted in names else _name_of(wanted, names)
    return Score(float(said == right), said, {"guessed": float(is_guess)})


def multi_label(question: Record, answer: str) -> Score:
    """F1 of the label names found as substrings, longest first; 1 when there is nothing to find."""
    said, wanted = _labels(question, answer)
    size = len(said) + len(wanted)
    return Score(2 * len(said & wanted) / size if size else 1.0, "; ".join(sorted(said)))


def ingredients(question: Record, answer: str) -> Score:
    """Share of the ingredients found as substrings: naming every one scores 1."""
    said, wanted = _labels(question, answer)
    return Score(len(said & wanted) / len(wanted) if wanted else 1.0, "; ".join(sorted(said)))


def rouge_l(question: Record, answer: str) -> Score:
    """ROUGE-L F with the nearest reference; what the package refuses scores 0."""
    try:
        package = import_module("rouge")
    except ImportError as error:
        raise StageError(
            "metric `rouge_l` of scorer `paper` needs the package `rouge`",
            hint="pip install rouge==1.0.1, or use scorer `strict`",
        ) from error
    found = [_rouge_f(package, answer, reference) for reference in question.references]
    scores = [score for score in found if score is not None]
    if not scores:
        return Score(0.0, None)
    extra = {"first": found[0] or 0.0} if len(found) > 1 else {}
    return Score(max(scores), answer, extra)


def clean(text: str) -> str:
    """Return the VQA clean-up: punctuation, digits for number words, no articles, contractions."""
    text = text.lower().replace("\n", " ").replace("\t", " ").strip()
    words = (_DIGITS.get(word, word) for word in _without_punctuation(text).split())
    kept = (word for word in words if word not in ("a", "an", "the"))
    return " ".join(_CONTRACTIONS.get(word, word) for word in kept)


def _without_punctuation(text: str) -> str:
    """Delete a mark that touches a space, else put a space; drop stops that no digit follows."""
    has_thousands = re.search(r"\d,\d", text) is not None
    out = text
    for mark in _PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if touches_space or has_thousands else " ")
    return re.sub(r"\.(?!\d)", "", out)


def _rouge_f(package: Any, answer: str, reference: str) -> float | None:
    try:
        return float(package.Rouge().get_scores(answer, reference)[0]["rouge-l"]["f"])
    except (ValueError, ZeroDivisionError, RecursionError):
        return None


def _texts(question: Record) -> list[str]:
    """Return the options without their letters; where the question holds them, no texts."""
    given: Sequence[str] = question.meta.extra.get("options") or ()
    if not given and question.references[0].strip() in _LETTERS_OF_FOUR:
        return ["" for _ in _LETTERS_OF_FOUR]
    if not given:
        raise StageError("the metrics of choices of scorer `paper` need questions with options")
    return [re.sub(r"^\s*(?:\([A-Z]\)|[A-Z][.:)])\s*(?=\S)", "", text) for text in given]


def _numbers(texts: Sequence[str]) -> list[str]:
    return [str(number) for number in range(len(texts))]


def _last_hit(answer: str, names: Mapping[str, str]) -> str | None:
    text = f" {answer.strip(',.!?;:' + chr(39))} "
    for places in (
        {name: text.rfind(f"({name})") for name in names},
        {name: text.rfind(f" {name} ") for name in names},
        {name: text.lower().rfind(option.lower()) for name, option in names.items() if option}
        if len(text) - 2 > _MIN_CHARS_FOR_TEXT
        else {},
    ):
        hits = {name: place for name, place in places.items() if place >= 0}
        if hits:
            return max(hits, key=lambda name: hits[name])
    return None


def _name_of(wanted: str, names: Mapping[str, str]) -> str | None:
    return next((n for n, text in names.items() if text.lower() == wanted.lower()), None)


def _labels(question: Record, answer: str) -> tuple[set[str], set[str]]:
    wanted = {text.lower() for text in question.references} - _NO_LABELS
    given = question.meta.extra.get("options") or question.references
    text, said = answer.lower(), set()
    for name in sorted(
        {text.lower() for text in given} - _NO_LABELS, key=lambda name: (-len(name), name)
    ):
        if name in text:
            said.add(name)
            text = text.replace(name, "")
    return said, wanted


METRICS: dict[str, Metric] = {
    "open": open_ended,
    "closed": closed,
    "short_answer": contained,
    "choice": choice,
    "class_name": class_name,
    "multi_label": multi_label,
    "ingredients": ingredients,
    "rouge_l": rouge_l,
}

PLUGIN = Scorer(version=2, metrics=METRICS)
