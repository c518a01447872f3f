"""The lock beside a recipe: where it is, how it is read and written, and what it pins."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.diagnostics import Diagnostic, RequestError, Span
from engine.plan import lock
from engine.plan.lock import Facts

if TYPE_CHECKING:
    from engine.recipe.model import Experiment

SUFFIX = ".lock.json"


def path_of(recipe: Path) -> Path:
    """Return where the lock of a recipe is."""
    return recipe.with_name(f"{recipe.stem}{SUFFIX}")


def facts(recipe: Path) -> Facts | None:
    """Return what the lock of a recipe holds; None without one. Raise RequestError for no lock."""
    return read(path_of(recipe))


def read(path: Path) -> Facts | None:
    """Return what a lock holds; None without one. Raise RequestError for what is no lock."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, str(error)) from None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise _broken(path, error.msg, Span(str(path), error.lineno, error.colno)) from None
    found = document.get("facts") if isinstance(document, dict) else None
    if not isinstance(found, dict) or document.get("lock") != lock.FORMAT:
        raise _broken(path, f"it has no `lock: {lock.FORMAT}` and `facts`")
    for name, value in found.items():
        if not isinstance(value, str | None):
            raise _broken(path, f"the fact `{name}` is no text")
    return found


def span(recipe: Path, fact: str) -> Span | None:
    """Return the line of a fact in the lock of a recipe."""
    path, head = path_of(recipe), f"{json.dumps(fact, ensure_ascii=False)}:"
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        column = line.find(head) + 1
        if column and not line[: column - 1].strip():
            return Span(str(path), number, column)
    return None


def write(path: Path, found: Facts) -> None:
    """Write a lock: sorted, one fact a line. Raise RequestError when it cannot be written."""
    document = {"lock": lock.FORMAT, "facts": dict(sorted(found.items()))}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = (error.strerror or "it cannot be written").lower()
        raise RequestError(Diagnostic("cannot-write", f"cannot write `{path}`: {reason}")) from None


def pinned(experiment: Experiment, found: Facts | None) -> Experiment:
    """Return an experiment with the locked commits where it names none."""
    if not found:
        return experiment
    everything = (experiment.recipe, *experiment.arms.values())
    first, *arms = lock.pinned(everything, found)
    return replace(experiment, recipe=first, arms=dict(zip(experiment.arms, arms, strict=True)))


def _broken(path: Path, why: str, span: Span | None = None) -> RequestError:
    message = f"`{path}` is no lock: {why}"
    hint = "write it anew with `adapt lock RECIPE`"
    return RequestError(Diagnostic("broken-lock", message, span or Span(str(path), 0, 0), hint))
