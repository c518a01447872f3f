"""Made-up words: nouns nobody has seen, so that a model must copy instead of recall."""

from __future__ import annotations

import random

_ONSETS: tuple[str, ...] = (
    "b",
    "bl",
    "br",
    "c",
    "cl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "l",
)
_ONSETS += (
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sk",
    "sl",
    "sn",
    "sp",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "x",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "oo", "ou", "y")
_CODAS = (
    "",
    "",
    "b",
    "ck",
    "d",
    "g",
    "l",
    "ll",
    "m",
    "n",
    "nd",
    "nt",
    "p",
    "r",
    "rt",
    "s",
    "sk",
    "t",
    "x",
    "z",
)
_ENDINGS = (
    "",
    "",
    "cyte",
    "oid",
    "ule",
    "ite",
    "on",
    "ella",
    "ix",
    "oma",
    "osis",
    "ine",
    "us",
    "um",
    "ast",
    "ia",
    "id",
)
_RESERVED_STEMS = ("velo", "toro", "spin", "lobu", "grann", "baci")


def made_up_word(rng: random.Random) -> str:
    """Return a pronounceable made-up noun of 4 to 14 letters."""
    while True:
        syllables = rng.choice((1, 2, 2, 2, 3))
        word = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables)
        )
        word += rng.choice(_ENDINGS)
        if 4 <= len(word) <= 14 and not word.startswith(_RESERVED_STEMS):
            return word


def plural(noun: str) -> str:
    """Return the regular plural."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
