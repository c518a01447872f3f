"""Diagnostics for machines: what GitHub shows on a pull request, and SARIF 2.1.0 for the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from engine.diagnostics import Diagnostic, Fix, Span

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def github(diagnostics: Iterable[Diagnostic]) -> str:
    """Return workflow commands: one line per diagnostic."""
    return "\n".join(_command(item) for item in diagnostics)


def sarif(diagnostics: Iterable[Diagnostic]) -> str:
    """Return a SARIF log; its rules are the pages of `adapt explain`."""
    found = list(diagnostics)
    rules = [_rule(code) for code in sorted({item.code for item in found})]
    run = {
        "tool": {"driver": {"name": "adapt", "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(item) for item in found],
    }
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=1)


def sentence(item: Diagnostic) -> str:
    """Return message, notes and hint as one text."""
    more = [str(note) for note in item.notes] + ([item.hint] if item.hint else [])
    return f"{item.message} ({'; '.join(more)})" if more else item.message


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


def _rule(code: str) -> dict[str, Any]:
    """Return what a viewer shows about a code."""
    from engine.cli import explain

    if code not in explain.codes():
        return {"id": code}
    page = explain.page(code)
    return {
        "id": code,
        "shortDescription": {"text": explain.summary(code)},
        "help": {"text": page, "markdown": page},
    }


def _result(item: Diagnostic) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": item.code,
        "level": "error",
        "message": {"text": sentence(item)},
    }
    if item.span is not None and item.span.line:
        result["locations"] = [_location(item.span)]
    related = [
        {**_location(note.span), "message": {"text": note.text}}
        for note in item.notes
        if note.span is not None and note.span.line
    ]
    if related:
        result["relatedLocations"] = related
    if item.fix is not None:
        result["fixes"] = [_fix(item.fix)]
    return result


def _fix(fix: Fix) -> dict[str, Any]:
    place = _location(fix.span)["physicalLocation"]
    region = {**place["region"], "endColumn": fix.span.column + len(fix.old)}
    replacement = {"deletedRegion": region, "insertedContent": {"text": fix.new}}
    return {
        "description": {"text": f"write `{fix.new}` for `{fix.old}`"},
        "artifactChanges": [
            {"artifactLocation": place["artifactLocation"], "replacements": [replacement]}
        ],
    }


def _location(span: Span) -> dict[str, Any]:
    from urllib.parse import quote

    region = {"startLine": span.line, "startColumn": span.column}
    return {"physicalLocation": {"artifactLocation": {"uri": quote(span.file)}, "region": region}}
