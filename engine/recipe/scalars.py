"""Unquoted YAML scalars by the core schema of YAML 1.2, whose values JSON can hold.

`1e-4` is a number and `no`, `22:22`, `2024-01-01` are texts; PyYAML's own rules say otherwise.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class AmbiguousNumberError(ValueError):
    """A number that readers of YAML disagree about."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.hint = hint


def parsed(text: str) -> Scalar:
    """Return what an unquoted text stands for.

    Raise ValueError for inf, nan, overflow, and for `010`: 8 to some readers, 10 to others.
    """
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _LEADING_ZERO.fullmatch(text):
        raise _ambiguous(text)
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(text)
    if _FLOAT.fullmatch(text):
        return _finite(text)
    return text


def _ambiguous(text: str) -> AmbiguousNumberError:
    plain = text.lstrip("+-0") or "0"
    sign = "-" if text.startswith("-") else ""
    why = "begins with a zero: YAML 1.1 reads it as octal, YAML 1.2 as decimal"
    return AmbiguousNumberError(why, f'write {sign}{plain}, 0o{plain}, or the text "{text}"')


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number
