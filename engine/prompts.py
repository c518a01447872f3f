"""Rendering of prompt templates: Jinja in a sandbox, where a missing variable is an error.

A rendered prompt has no white space at its ends. A template sees the variables it is given and
nothing else: no files, no environment, no includes.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


class PromptError(ValueError):
    """A template is broken, or uses a variable that it was not given; the message says which."""


def render(template_text: str, **variables: object) -> str:
    """Render a template. Raise `PromptError` when it is broken or lacks a variable."""
    from jinja2 import TemplateError

    try:
        return _compiled(template_text).render(**variables).strip()
    except TemplateError as error:
        raise PromptError(f"a prompt template cannot be rendered: {error}") from error


def digest(text: str) -> str:
    """Return the SHA-256 of a prompt, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _compiled(template_text: str) -> Template:
    from jinja2 import DictLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Prompts are plain text for a model, never HTML: escaping would garble them.
    environment = ImmutableSandboxedEnvironment(
        loader=DictLoader({}),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(template_text)
