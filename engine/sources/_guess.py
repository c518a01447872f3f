"""Guesses what the columns of an unknown table mean, from their names and a few values.

A guess is for `adapt init --data`, which writes it down for a person to check; no source ever
reads by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from engine.sources import _files
from engine.sources._columns import ALIASES

Raw = Mapping[str, Any]
_SHOWN_CHARS = 60
_CHATS = ("conversations", "messages")
# Beyond what messages suggest: names seen in captioning data sets.
_ALSO = {
    "image": ("filename", "filepath", "file", "path", "picture", "photo", "webp", "jpeg"),
    "caption": ("captions", "sentence", "sentences", "alt_text", "alt", "title", "report"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: what its values are, and one of them."""

    name: str
    holds: str  # picture, picture path, text, texts, conversation, number, other
    example: str


def columns_of(rows: Sequence[Raw]) -> tuple[Column, ...]:
    """Return the columns of the rows, in the order in which they are first seen."""
    names = dict.fromkeys(name for row in rows for name in row)
    return tuple(_column(name, [row[name] for row in rows if name in row]) for name in names)


def candidates(ours: str, columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the columns that may be our `image` or `caption`, the likeliest first."""
    fitting = [column for column in columns if column.holds in _FITTING[ours]]
    ranked = sorted(fitting, key=lambda column: _rank(ours, column))
    named = [column.name for column in ranked if _rank(ours, column) < len(_names(ours))]
    return tuple(named or [column.name for column in ranked])


def conversation_column(columns: Iterable[Column]) -> str | None:
    """Return the column that holds conversations, if there is one."""
    return next((column.name for column in columns if column.holds == "conversation"), None)


_FITTING = {
    "image": ("picture", "picture path", "pictures"),
    "caption": ("text", "texts"),
}


def _names(ours: str) -> tuple[str, ...]:
    return (ours, *ALIASES[ours], *_ALSO[ours])


def _rank(ours: str, column: Column) -> int:
    names = _names(ours)
    name = column.name.lower()
    return names.index(name) if name in names else len(names)


def _column(name: str, values: Sequence[Any]) -> Column:
    there = [value for value in values if value is not None and value != ""]
    if not there:
        return Column(name, "other", "always empty")
    kinds = [_kind(value) for value in there]
    commonest = max(dict.fromkeys(kinds), key=kinds.count)
    return Column(name, commonest, _shown(there[kinds.index(commonest)]))


def _kind(value: Any) -> str:
    if isinstance(value, bytes) or (isinstance(value, Mapping) and {"bytes", "path"} & set(value)):
        return "picture"
    if isinstance(value, str):
        return _kind_of_text(value)
    if isinstance(value, list | tuple) and value:
        return _kind_of_list(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else "other"


def _kind_of_text(value: str) -> str:
    suffix = PurePosixPath(value.strip()).suffix.lower()
    if suffix in _files.PICTURES and len(value) < 500:
        return "picture path"
    try:
        float(value)
    except ValueError:
        return "text"
    return "number"


def _kind_of_list(values: Sequence[Any]) -> str:
    first = values[0]
    if isinstance(first, Mapping) and {"from", "role"} & set(first):
        return "conversation"
    inner = _kind(first)
    return {"picture": "pictures", "picture path": "pictures", "text": "texts"}.get(inner, "other")


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return f"{len(value['bytes']):,} bytes"
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
