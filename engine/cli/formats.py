"""Diagnostics for machines: what GitHub shows on a pull request, and SARIF 2.1.0 for the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from engine.diagnostics import Diagnostic

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def github(diagnostics: Iterable[Diagnostic]) -> str:
    """Return workflow commands: one line per diagnostic."""
    return "\n".join(_command(item) for item in diagnostics)


def sarif(diagnostics: Iterable[Diagnostic]) -> str:
    """Return a SARIF log."""
    found = list(diagnostics)
    rules = [{"id": code} for code in sorted({item.code for item in found})]
    driver = {"name": "adapt", "rules": rules}
    run = {"tool": {"driver": driver}, "results": [_result(item) for item in found]}
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=1)


def sentence(item: Diagnostic) -> str:
    """Return message and hint as one text."""
    return f"{item.message} ({item.hint})" if item.hint else item.message


def _command(item: Diagnostic) -> str:
    span = item.span
    where = ""
    if span is not None and span.line:
        where = f"file={_escaped(span.file, in_property=True)},line={span.line},col={span.column},"
    return f"::error {where}title={item.code}::{_escaped(sentence(item))}"


def _escaped(text: str, *, in_property: bool = False) -> str:
    pairs = [("%", "%25"), ("\r", "%0D"), ("\n", "%0A")]
    for raw, code in [*pairs, (":", "%3A"), (",", "%2C")] if in_property else pairs:
        text = text.replace(raw, code)
    return text


def _result(item: Diagnostic) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": item.code,
        "level": "error",
        "message": {"text": sentence(item)},
    }
    if item.span is not None and item.span.line:
        region = {"startLine": item.span.line, "startColumn": item.span.column}
        place = {"artifactLocation": {"uri": item.span.file}, "region": region}
        result["locations"] = [{"physicalLocation": place}]
    return result
