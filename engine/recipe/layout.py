"""The layout of a recipe's text, made tidy without touching what it says or its comments."""

from __future__ import annotations

import re

from engine.diagnostics import RequestError
from engine.recipe.source import read

_INDENT = re.compile(r"^[ \t]*")


def tidied(text: str) -> str:
    """Return the text with tidy white space; unchanged when that could change a value.

    Tabs that indent become two spaces, which also mends a file that YAML refuses for them.
    """
    candidate = _tidied(text)
    return candidate if _says_the_same(text, candidate) else text


def _tidied(text: str) -> str:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept: list[str] = []
    for line in (_tidied_line(line) for line in lines):
        if line or (kept and kept[-1]):  # at most one empty line in a row, none at the top
            kept.append(line)
    return "\n".join(kept).rstrip("\n") + "\n"


def _tidied_line(line: str) -> str:
    indented = _INDENT.sub(lambda found: found.group().replace("\t", "  "), line)
    return indented.rstrip()


def _says_the_same(text: str, candidate: str) -> bool:
    after = _plain(candidate)
    return after is not None and _plain(text) in (after, None)


def _plain(text: str) -> object:
    """Return what a text says; None when it is not valid."""
    try:
        return read(text, "").plain()
    except RequestError:
        return None
