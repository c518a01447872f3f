"""Changes the text of a recipe where a mistake has one certain way out; all else stays as it is.

Only the file given is changed, never a parent. A change is taken back when its line then has a
mistake that was not there before, other than a key that is missing or one that is mended next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.diagnostics import Diagnostic, Fix, RequestError
from engine.recipe.compose import shown_path
from engine.recipe.load import load_experiment

_ROUNDS = 4  # mending one mistake can bring another to light


def mended(path: Path, text: str) -> tuple[str, list[Fix]]:
    """Return the text of a recipe with what is certain repaired, and what was changed."""
    done: list[Fix] = []
    refused: set[Fix] = set()
    for _ in range(_ROUNDS):
        before = _mistakes(path, text)
        fixes = [f for f in _fixes(before, shown_path(path)) if f not in refused]
        taken, text = _taken(path, text, fixes, before)
        refused.update(f for f in fixes if f not in taken)
        done += taken
        if not taken:
            break
    return text, done


def _taken(
    path: Path, text: str, fixes: list[Fix], before: Sequence[Diagnostic]
) -> tuple[list[Fix], str]:
    """Return the changes that make no line worse, and the text with them."""
    known = {_identity(item) for item in before}
    if not fixes or not _is_worse_with(fixes, path, text, known):
        return fixes, applied(text, fixes)
    taken: list[Fix] = []
    for fix in fixes:  # one by one, so that a bad one takes no good one with it
        if not _is_worse_with([*taken, fix], path, text, known):
            taken.append(fix)
    return taken, applied(text, taken)


def _is_worse_with(fixes: list[Fix], path: Path, text: str, known: set[tuple[str, str]]) -> bool:
    """Tell whether a changed line has a mistake that was not known; elsewhere one was hidden."""
    name, lines = shown_path(path), {fix.span.line for fix in fixes}
    return any(
        item.code == "syntax"
        or (item.span is not None and item.span.file == name and item.span.line in lines)
        for item in _mistakes(path, applied(text, fixes))
        if _is_worse(item, known)
    )


def applied(text: str, fixes: Sequence[Fix]) -> str:
    """Return a text with changes made at their places, the last one first."""
    lines = text.splitlines(keepends=True)
    for fix in sorted(fixes, key=lambda fix: fix.span, reverse=True):
        row, start = fix.span.line - 1, fix.span.column - 1
        line = lines[row]
        assert line.startswith(fix.old, start), "a change knows what it replaces"
        lines[row] = line[:start] + fix.new + line[start + len(fix.old) :]
    return "".join(lines)


def _fixes(mistakes: Sequence[Diagnostic], name: str) -> list[Fix]:
    """Return the changes of one file, one for each place."""
    found = {item.fix.span: item.fix for item in mistakes if item.fix}
    return [fix for span, fix in found.items() if span.file == name]


def _is_worse(item: Diagnostic, known: set[tuple[str, str]]) -> bool:
    """Tell whether a mistake is new, and neither mended next nor one that was only hidden."""
    return _identity(item) not in known and item.fix is None and item.code != "missing-key"


def _identity(item: Diagnostic) -> tuple[str, str]:
    return item.code, item.message


def _mistakes(path: Path, text: str) -> tuple[Diagnostic, ...]:
    """Return the mistakes of a recipe as if the file held this text."""
    try:
        load_experiment(path, text=text)
    except RequestError as error:
        return error.diagnostics
    return ()
