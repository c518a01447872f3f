"""Prompt templates that a recipe names: each must exist, and use only what it is given there.

The file of `name@version` is prompt_templates/<name>/v<version>.j2. Its variables are found by a
small scanner and not by Jinja, whose import takes longer than all other checks; a test holds the
two equal on every template.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from engine import package_data
from engine.diagnostics import Diagnostic, nearest
from engine.recipe import params
from engine.recipe.params import PromptUse
from engine.recipe.schema import Schema
from engine.recipe.subject import Subject

_COMMENT = re.compile(r"\{#.*?#\}", re.S)
_CODE = re.compile(r"\{\{(.*?)\}\}|\{%-?(.*?)-?%\}", re.S)
_TEXT = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_BOUND = re.compile(r"\b(?:for\s+([\w\s,()]+?)\s+in\b|set\s+(\w+))")
_NAME = re.compile(r"(?<![\w.|])(?<!\|\s)([A-Za-z_]\w*)\b(?!\s*=[^=])")
_WORDS = frozenset(
    (
        *("if", "elif", "else", "endif", "for", "in", "endfor", "set", "endset"),
        *("not", "and", "or", "is", "true", "false", "none", "True", "False", "None"),
        *("loop", "range", "namespace", "dict", "defined", "undefined", "recursive"),
    )
)


def mistakes(instance: Any, frame: Schema, subject: Subject) -> list[Diagnostic]:
    """Return a diagnostic for every named template that is not there or asks for too much."""
    known = _known()
    result = []
    for use in params.prompts_named(instance, frame, frame):
        if use.name in known:
            result += _not_given(use, subject)
        elif "@" in use.name:  # a name of another form is a mistake of its own
            result.append(_unknown(use, known, subject))
    return result


def variables(text: str) -> frozenset[str]:
    """Return the variables that a template takes from outside."""
    code = ["".join(found) for found in _CODE.findall(_COMMENT.sub("", text))]
    bare = [_TEXT.sub("''", part) for part in code]
    bound = {
        name
        for part in bare
        for names in _BOUND.findall(part)
        for name in re.findall(r"\w+", " ".join(names))
    }
    used = {name for part in bare for name in _NAME.findall(part)}
    return frozenset(used - bound - _WORDS)


def is_known(name: str) -> bool:
    """Tell whether there is a template `name@version`."""
    return name in _known()


@cache
def template_text(name: str) -> str:
    """Return the text of a template `name@version` that exists."""
    task, _, version = name.partition("@")
    path = package_data.folder("prompt_templates") / task / f"v{version}.j2"
    return path.read_text(encoding="utf-8")


def _not_given(use: PromptUse, subject: Subject) -> list[Diagnostic]:
    missing = sorted(variables(template_text(use.name)) - use.variables)
    if not missing:
        return []
    listed = ", ".join(f"`{name}`" for name in missing)
    given = ", ".join(f"`{name}`" for name in sorted(use.variables))
    return [
        Diagnostic(
            "prompt-variables",
            f"the prompt `{use.name}` needs {listed}, which it is not given here",
            subject.value(*use.place),
            f"a prompt of `{subject.name(use.place)}` is given {given}",
        )
    ]


def _unknown(use: PromptUse, known: frozenset[str], subject: Subject) -> Diagnostic:
    close = nearest(use.name, known)
    return Diagnostic(
        "unknown-prompt",
        f"there is no prompt template `{use.name}`",
        subject.value(*use.place),
        f"did you mean `{close}`?" if close else "known: " + ", ".join(sorted(known)),
    )


@cache
def _known() -> frozenset[str]:
    found = package_data.folder("prompt_templates").glob("*/v*.j2")
    return frozenset(f"{path.parent.name}@{path.stem.removeprefix('v')}" for path in found)
