"""How texts are read: their words and normal form; of answers, conclusion, numbers and options.

A model that was taught to reason first and conclude last ("... So the answer is 5.") and one that
writes a bare "5" must be read alike. Therefore every metric looks at the conclusion of an answer,
for both models: the sentence after its last answer marker, or the whole answer without one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

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
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ARTICLES = {"a", "an", "the"}
_NOTHING = {"no", "none", "nothing"}

_EXPLICIT = r"""
        \b(?:answer|conclusion|result)\s+(?:is|are|(?:would|must|should)\s+be)\b(?:\s+that\b)?\s*:?
      | \b(?:answer|conclusion|result)\s*[:=]"""
_MARKER = re.compile(
    rf"""(?P<explicit>{_EXPLICIT})
      | (?:^|(?<=[.!?;,:\n]))\s*(?:and\s+)?
        (?:so|thus|therefore|hence|consequently|in\s+short|in\s+conclusion|to\s+conclude|overall)
        \b\s*[,:]?""",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
_SHORTENED = re.compile(  # words whose full stop ends no sentence; "MR." and "no." do end one
    r"\b(?:approx|ca|cf|vs|e\.g|i\.e|resp|incl|[Ff]ig|spp|subsp|al|Dr|Prof|St|Mt|Mrs|Staph|Strep)\.$"
)
_INITIAL = re.compile(r"\b[A-Z]\.$")  # of a name, where a small letter follows: "E. coli"
_BULLET = re.compile(r"^[ \t]*(?:[-*\u2022]|\d+[.)])[ \t]+", re.MULTILINE)
_SIGNS = (
    (re.compile(r"(?:<=|\u2264)\s*(?=\d)"), " at most "),
    (re.compile(r"(?:>=|\u2265)\s*(?=\d)"), " at least "),
    (re.compile(r"<\s*(?=\d)"), " less than "),
    (re.compile(r">\s*(?=\d)"), " more than "),
    (re.compile(r"(?<![\w.)])[-\u2212](?=\d)"), " minus "),
)
_LEAD_IN = re.compile(
    r"^(?:(?:it|this|that|they|these|those|there)\s+(?:is|are|was|were)"
    r"|(?:image|picture|photo)\s+(?:shows|depicts))\s+"
)
# Hiragana, katakana, CJK ideographs and Thai.
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"\w+")
_OPTION_LETTER = re.compile(r"^\s*(?:\([A-Z]\)|[A-Z][.:)])\s*(?=\S)")


def num_words(text: str) -> int:
    """Count words: runs of letters or digits.

    Text in a script without spaces (Chinese, Japanese, Thai) counts one word per two characters,
    about what its words measure.
    """
    num_unspaced = len(_UNSPACED.findall(text))
    return len(_WORD.findall(_UNSPACED.sub(" ", text))) + (num_unspaced + 1) // 2


def conclusion(answer: str) -> str:
    """Return what follows the last answer marker, or the whole answer without one.

    That is one sentence, or all items of a bulleted list.
    """
    return _concluded(plain(answer))[0]


def readings(answer: str) -> tuple[str, ...]:
    """Return the texts to parse, in order: the conclusion, then the whole answer.

    An answer that says "the answer is ..." is read there and nowhere else.
    """
    text = plain(answer)
    found, is_explicit = _concluded(text)
    return (found,) if is_explicit else tuple(dict.fromkeys((found, text)))


def plain(answer: str) -> str:
    """Return an answer without its thinking block and without emphasis marks."""
    said = re.sub(r"^[ \t]*\*[ \t]+", "- ", answer.rpartition("</think>")[2], flags=re.MULTILINE)
    return re.sub(r"[*_`]+", "", said).strip()


def without_bullets(text: str) -> str:
    """Return a text without the marks at the start of list items."""
    return _BULLET.sub("", text)


def normal(text: str) -> str:
    """Return lower-case words without punctuation and articles; number words become digits."""
    text = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("\u2019", "")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    for sign, word in _SIGNS:
        text = sign.sub(word, text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text)
    words = re.sub(r"[^\w\s.]|_", " ", text).split()
    return " ".join(_joined_numbers([word for word in words if word not in _ARTICLES]))


def core(text: str) -> str:
    """Return the normal form without a lead-in such as "it is"."""
    words = normal(text)
    return _LEAD_IN.sub("", words) or words


def agrees(answer: str, reference: str) -> bool:
    """Tell whether an answer comes to the same as a reference, by its conclusion or as a whole."""
    wanted = core(reference)
    return any(core(reading) == wanted for reading in readings(answer))


def numbers(text: str) -> list[float]:
    """Return the different numbers of a text, in digits or words; "none" is 0 if it is alone."""
    words = normal(text).split()
    found = [
        -float(word) if before == "minus" else float(word)
        for before, word in zip(["", *words], words, strict=False)
        if _NUMBER.fullmatch(word)
    ]
    if not found and _NOTHING.intersection(words):
        return [0.0]
    return list(dict.fromkeys(found))


def options(question: Record) -> tuple[str, ...]:
    """Return the options of a question in normal form, without their letters."""
    given: Sequence[str] = question.meta.extra.get("options") or ()
    return tuple(option_key(_OPTION_LETTER.sub("", option)) for option in given)


def option_key(text: str) -> str:
    """Return the normal form of an option; of "A" and "the", which have none, the text itself."""
    return normal(text) or text.strip().casefold()


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


def _concluded(text: str) -> tuple[str, bool]:
    """Return the conclusion of a plain text, and whether the text calls it the answer."""
    for marker in reversed(list(_MARKER.finditer(text))):
        rest = text[marker.end() :].strip()
        if not re.search(r"\w", rest):
            continue
        is_explicit = marker["explicit"] is not None
        listed = re.match(rf"(?:{_BULLET.pattern}.*(?:\n|$)){{2,}}", rest, re.MULTILINE)
        if listed:
            return without_bullets(listed[0]).strip(), is_explicit
        return _first_sentence(rest), is_explicit
    return text, False


def _first_sentence(text: str) -> str:
    for end in _SENTENCE_END.finditer(text):
        head, after = text[: end.start()], text[end.end() :]
        is_name = after[:1].islower() and _INITIAL.search(head)
        if end[0] == "\n" or not (is_name or _SHORTENED.search(head)):
            return head.strip()
    return text.strip()


def _joined_numbers(words: Sequence[str]) -> list[str]:
    """Turn number words into digits: "twenty three" becomes 23, "two hundred and five" 205."""
    joined: list[str] = []
    value: float | None = None  # of the number that ends `joined`, while words may go on with it
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        small, scale = _VALUES.get(word), _SCALES.get(word)
        if word == "and" and value and value % 100 == 0 and after in _VALUES:
            continue
        goes_on = value is not None and (scale is not None or _takes(value, small))
        if scale is not None:
            low = (value or 0) % scale
            value = (value or 0) - low + (low or 1) * scale
        elif small is not None:
            value = (value or 0) + small if goes_on else float(small)
        else:
            value = float(word) if _NUMBER.fullmatch(word) and after in _SCALES else None
        if goes_on:
            joined.pop()
        joined.append(word if value is None else f"{value:.15g}")
    return joined


def _takes(value: float, small: int | None) -> bool:
    """Tell whether a number word adds to the number before it: "twenty" takes "three"."""
    if not small or not value:
        return False
    tens = value % 100
    return tens == 0 or (tens >= 20 and tens % 10 == 0 and small < 10)
