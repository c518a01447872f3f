"""What `--fix` may change: mistakes with exactly one way out, and none that a person must weigh."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engine import plugin
from engine.diagnostics import Fix, Span
from engine.recipe import spellings
from engine.recipe.peers import DIFFERS, OURS
from engine.recipe.subject import Subject

_MAX_DISTANCE = 2
_MAX_KEYS = 100  # of one section; whoever writes more means something else
_WORDS = re.compile(r"[\w./@-]+")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}([,_]\d{3})+")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def of_key(
    key: str, known: Sequence[str], present: Collection[str], place: Any, subject: Subject
) -> Fix | None:
    """Return the change of an unknown key into the one of its section that is surely meant."""
    if len(present) > _MAX_KEYS:
        return None
    ours = _certain_key(key, known, subject.name(place))
    taken = ours is None or ours in present
    raw = subject.raw_key(*place, key)
    rivals = [k for k in present if k not in known and k != key]
    if taken or ours in [_certain_key(k, known, subject.name(place)) for k in rivals]:
        return None
    return _fix(subject.key(*place, key), raw, raw.replace(key, str(ours), 1))


def of_value(
    types: Sequence[str], value: Any, schema: Mapping[str, Any], place: Any, subject: Subject
) -> Fix | None:
    """Return the change of a value of the wrong type that keeps what it says."""
    raw = subject.raw(*place)
    new = _as_type(types, value, raw, schema)
    return _fix(subject.value(*place), raw, new) if new is not None else None


def _as_type(types: Sequence[str], value: Any, raw: str, schema: Mapping[str, Any]) -> str | None:
    """Return a scalar as it must be written to be of one of `types`."""
    if isinstance(value, str):
        if "boolean" in types and value.lower() in spellings.YAML_1_1:
            return spellings.YAML_1_1[value.lower()]
        if "x-family" in schema and value in plugin.names(schema["x-family"]):
            return f"{{use: {raw}}}"
        if "number" in types or "integer" in types:
            return _number(value, "number" in types)
    if "array" in types and _fits_a_list(value, schema.get("items", {})):
        return f"[{raw}]"
    if "string" in types and isinstance(value, int | float) and not isinstance(value, bool):
        return f'"{raw}"'
    return None


def _number(text: str, may_have_a_point: bool) -> str | None:
    if _THOUSANDS.fullmatch(text):
        return text.replace(",", "").replace("_", "").removeprefix("+")
    is_whole = re.fullmatch(r"[-+]?(0|[1-9]\d*)", text) is not None
    is_right = is_whole or (may_have_a_point and _NUMBER.fullmatch(text) is not None)
    return text if is_right and not re.match(r"[-+]?0\d", text) else None


def _fits_a_list(value: Any, items: Mapping[str, Any]) -> bool:
    if not isinstance(value, str) or not _WORDS.fullmatch(value):
        return False
    return value in items["enum"] if "enum" in items else items.get("type") == "string"


def _certain_key(key: str, known: Sequence[str], section: str) -> str | None:
    """Return the one key of a section that others call `key`, or that it misspells."""
    word = spellings.plain_word(key)
    if word in known:
        return word
    if word in DIFFERS:
        return None
    home, _, leaf = OURS.get(word, "").rpartition(".")
    if leaf in known and home.rpartition(".")[2] == section.rpartition(".")[2]:
        return leaf
    if word in OURS:
        return None
    near = [name for name in known if _is_misspelt(word, name)]
    return near[0] if len(near) == 1 else None


def _is_misspelt(word: str, name: str) -> bool:
    if min(len(word), len(name)) < 4 or abs(len(word) - len(name)) > _MAX_DISTANCE:
        return False
    return _distance(word, name) <= (_MAX_DISTANCE if len(name) > 6 else 1)


def _distance(one: str, other: str) -> int:
    """Return how many letters to add, drop, change or swap turn one word into the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _fix(span: Span, old: str, new: str) -> Fix | None:
    """Return a change within one line of a file that somebody wrote."""
    if not old or span.line == 0 or "\n" in old or old == new:
        return None
    return Fix(span, old, new)
