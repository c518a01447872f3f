"""The page templates of this folder: what they show is untrusted, so everything is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


@cache
def page_template(name: str) -> Any:
    """Return the template `<name>.html.j2`; a variable that it is not given is an error."""
    from jinja2 import Environment, StrictUndefined

    text = (Path(__file__).parent / f"{name}.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
