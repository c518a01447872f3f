"""Rendering of prompt templates: Jinja in a sandbox, where a missing variable is an error.

A rendered prompt has no white space at its ends. A template sees the variables it is given and
nothing else: no files, no environment, no includes.

Captions and generated texts are data of strangers. Two filters keep them inside the place that a
template gives them: `one_line` for fields of a line each, so that a text cannot begin a field of
its own; `data` for text between tags, so that it cannot close them. Both take care of control
tokens that are written out (`</s>`, `<|eot_id|>`), which a base LLM would read as such.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment, Template


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
    return environment().from_string(template_text)


@cache
def environment() -> Environment:
    """Return the sandbox that templates are rendered in."""
    from jinja2 import DictLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Prompts are plain text for a model, never HTML: escaping would garble them.
    made = ImmutableSandboxedEnvironment(
        loader=DictLoader({}),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"one_line": one_line, "data": data}
    return made


def one_line(text: object) -> str:
    """Return a text on one line: line ends of every kind and runs of space become one space.

    The `<` of what looks like a control token becomes another sign that looks alike.
    """
    return _CONTROL.sub(_LOOKALIKE, " ".join(str(text).split()))


_LOOKALIKE = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"
_CONTROL = re.compile(r"<(?=(?:\|[^<>|]+\||/?[A-Za-z_]+)>)")
_TAG = re.compile(r"<(?=\s*[/|]?\s*[A-Za-z])")


def data(text: object) -> str:
    """Return a text that holds no tag: a `<` before a name becomes another sign that looks alike.

    Comparisons such as `p < 0.05` stay as they are.
    """
    return _TAG.sub(_LOOKALIKE, str(text).strip())
