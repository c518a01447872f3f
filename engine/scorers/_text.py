"""How our rule book reads text: its normal form, its conclusion, its numbers, its options.

A model that was taught to reason first and conclude last ("... So the answer is 5.") and one that
writes a bare "5" must be read alike. Therefore every metric looks at the conclusion of an answer,
for both models: the sentence after its last answer marker, or the whole answer without one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from engine.records import Record

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    **{word: number for number, word in enumerate(_SMALL)},
    **{word: number for number, word in zip(range(20, 100, 10), _TENS, strict=True)},
}
_ARTICLES = {"a", "an", "the"}
_NOTHING = {"no", "none", "nothing"}

_MARKER = re.compile(
    r"""\b(?:answer|conclusion|result)\s+(?:is|are|(?:would|must|should)\s+be)\b(?:\s+that\b)?\s*:?
      | \b(?:answer|conclusion|result)\s*[:=]
      | (?:^|(?<=[.!?;,:\n]))\s*(?:and\s+)?
        (?:so|thus|therefore|hence|consequently|in\s+short|in\s+conclusion|to\s+conclude|overall)
        \b\s*[,:]?""",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
_LEAD_IN = re.compile(
    r"^(?:(?:it|this|that|they|these|those|there)\s+(?:is|are|was|were)"
    r"|(?:image|picture|photo)\s+(?:shows|depicts))\s+"
)
_OPTION_LETTER = re.compile(r"^\s*(?:\([A-Z]\)|[A-Z][.:)])\s*(?=\S)")


def conclusion(answer: str) -> str:
    """Return the sentence after the last answer marker, or the whole answer without one."""
    text = plain(answer)
    for marker in reversed(list(_MARKER.finditer(text))):
        rest = text[marker.end() :].strip()
        if re.search(r"\w", rest):
            return _SENTENCE_END.split(rest)[0].strip()
    return text


def readings(answer: str) -> tuple[str, ...]:
    """Return the texts to parse, in order: the conclusion, then the whole answer."""
    return tuple(dict.fromkeys((conclusion(answer), plain(answer))))


def plain(answer: str) -> str:
    """Return an answer without its thinking block and without emphasis marks."""
    return re.sub(r"[*_`]+", "", answer.rpartition("</think>")[2]).strip()


def normal(text: str) -> str:
    """Return lower-case words without punctuation and articles; number words become digits."""
    text = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("\u2019", "")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text)
    words = re.sub(r"[^\w\s.]|_", " ", text).split()
    return " ".join(_joined_numbers([word for word in words if word not in _ARTICLES]))


def core(text: str) -> str:
    """Return the normal form without a lead-in such as "it is"."""
    words = normal(text)
    return _LEAD_IN.sub("", words) or words


def numbers(text: str) -> list[float]:
    """Return the different numbers of a text, in digits or words; "none" is 0 if it is alone."""
    words = normal(text).split()
    found = [float(word) for word in words if re.fullmatch(r"\d+(?:\.\d+)?", word)]
    if not found and _NOTHING.intersection(words):
        return [0.0]
    return list(dict.fromkeys(found))


def options(question: Record) -> tuple[str, ...]:
    """Return the options of a question in normal form, without their letters."""
    given: Sequence[str] = question.meta.extra.get("options") or ()
    return tuple(normal(_OPTION_LETTER.sub("", option)) for option in given)


def named(names: Sequence[str], text: str) -> list[str]:
    """Return which normal names a text holds as whole words; longer names take theirs first."""
    rest = normal(text)
    found = set()
    for name in sorted(set(names) - {""}, key=lambda name: (-len(name), name)):
        pattern = rf"(?<!\S){re.escape(name)}(?!\S)"
        if re.search(pattern, rest):
            found.add(name)
            rest = re.sub(pattern, "|", rest)
    return [name for name in names if name in found]


def _joined_numbers(words: Sequence[str]) -> list[str]:
    """Turn number words into digits; "twenty three" becomes 23."""
    joined: list[str] = []
    may_add_unit = False
    for word in words:
        value = _VALUES.get(word)
        if value is not None and may_add_unit and 0 < value < 10:
            joined[-1] = str(int(joined[-1]) + value)
        else:
            joined.append(word if value is None else str(value))
        may_add_unit = value is not None and value >= 20
    return joined
