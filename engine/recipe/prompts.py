"""Prompt templates that a recipe names: each must exist as prompt_templates/<name>/v<n>.j2."""

from __future__ import annotations

from functools import cache
from typing import Any

from engine import package_data
from engine.diagnostics import Diagnostic, nearest
from engine.recipe import params
from engine.recipe.schema import Schema
from engine.recipe.subject import Subject


def unknown(instance: Any, frame: Schema, subject: Subject) -> list[Diagnostic]:
    """Return a diagnostic for every named template that does not exist."""
    known = _known()
    result = []
    for place, name in params.prompts_named(instance, frame, frame):
        if name in known or "@" not in name:
            continue  # a name of another form is a mistake of its own
        close = nearest(name, known)
        result.append(
            Diagnostic(
                "unknown-prompt",
                f"there is no prompt template `{name}`",
                subject.value(*place),
                f"did you mean `{close}`?" if close else "known: " + ", ".join(sorted(known)),
            )
        )
    return result


@cache
def _known() -> frozenset[str]:
    found = package_data.folder("prompt_templates").glob("*/v*.j2")
    return frozenset(f"{path.parent.name}@{path.stem.removeprefix('v')}" for path in found)
