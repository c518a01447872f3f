"""The published evaluators of AdaMLLM and LLaVA-Med, quirks and all, written from BENCHMARKS 1.3.

For comparison with published tables, never for a claim: "normal" holds a "no", repetition raises
recall, and an option that cannot be read is drawn at random (here by a seed of the item's own, and
marked with `guessed`; the published draw depends on the order of all items). ROUGE-L is that of the
package `rouge` 1.0.1, which is another number than Google's.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module

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


def choice(question: Record, answer: str) -> Score:
    """Take the last "(B)", else the last " B ", else the last option text, else a random option."""
    names = _names(question)
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


def multi_label_recall(question: Record, answer: str) -> Score:
    """Share of the labels found as substrings: naming every label scores 1."""
    said, wanted = _labels(question, answer)
    return Score(len(said & wanted) / len(wanted) if wanted else 1.0, "; ".join(sorted(said)))


def rouge_l(question: Record, answer: str) -> Score:
    """ROUGE-L F with the first reference; what the package refuses scores 0."""
    try:
        package = import_module("rouge")
    except ImportError as error:
        raise StageError(
            "metric `rouge_l` of scorer `paper` needs the package `rouge`",
            hint="pip install rouge==1.0.1, or use scorer `strict`",
        ) from error
    try:
        scores = package.Rouge().get_scores(answer, question.references[0])
    except (ValueError, ZeroDivisionError, RecursionError):
        return Score(0.0, None)
    return Score(float(scores[0]["rouge-l"]["f"]), answer)


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


def _names(question: Record) -> dict[str, str]:
    """Return the options by letter, or by number where there are too many for letters."""
    given: Sequence[str] = question.meta.extra.get("options") or ()
    if not given:
        raise StageError("metric `choice` of scorer `paper` needs questions with options")
    texts = [re.sub(r"^\s*(?:\([A-Z]\)|[A-Z][.:)])\s*(?=\S)", "", text) for text in given]
    keys = _LETTERS if len(texts) <= len(_LETTERS) else [str(i) for i in range(len(texts))]
    return dict(zip(keys, texts, strict=False))


def _last_hit(answer: str, names: Mapping[str, str]) -> str | None:
    text = f" {answer.strip(',.!?;:' + chr(39))} "
    for places in (
        {name: text.rfind(f"({name})") for name in names},
        {name: text.rfind(f" {name} ") for name in names},
        {name: text.lower().rfind(option.lower()) for name, option in names.items()}
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
    wanted = {text.lower() for text in question.references}
    given = question.meta.extra.get("options") or question.references
    text, said = answer.lower(), set()
    for name in sorted({option.lower() for option in given}, key=lambda name: (-len(name), name)):
        if name in text:
            said.add(name)
            text = text.replace(name, "")
    return said, wanted


METRICS: dict[str, Metric] = {
    "open": open_ended,
    "closed": closed,
    "choice": choice,
    "multi_label": multi_label,
    "multi_label_recall": multi_label_recall,
    "rouge_l": rouge_l,
}

PLUGIN = Scorer(version=1, metrics=METRICS)
