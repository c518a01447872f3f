"""A resolved recipe as YAML, each value with the place that said it.

The text reads the same in YAML 1.1 and 1.2, because people paste it into other tools: names that
1.1 takes for booleans are quoted, and a float has a point (`1e-05` is a text in 1.1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import package_data
from engine.cli import tables
from engine.diagnostics import Span
from engine.recipe.model import Path_

Spans = Mapping[Path_, Span]
_PLAIN_NAME = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[a-z_][\w./-]*", re.I | re.A)


def yaml_lines(value: Any, path: Path_, spans: Spans) -> Iterator[tuple[str, str]]:
    """Yield YAML lines and the origin of each value: `file:line`, or `default`."""
    indent = "  " * len(path)
    is_list = isinstance(value, list)
    for key, item in enumerate(value) if is_list else value.items():
        here = (*path, key)
        head = "-" if is_list else f"{_name(str(key))}:"
        if is_list and isinstance(item, dict) and item:
            first, *rest = yaml_lines(item, here, spans)
            yield f"{indent}- {first[0].strip()}", first[1]
            yield from rest
        elif _is_nested(item):
            yield f"{indent}{head}", ""
            yield from yaml_lines(item, here, spans)
        else:
            yield f"{indent}{head} {_flow(item)}", _origin(here, spans)


def _is_nested(value: Any) -> bool:
    """Tell whether a value gets lines of its own; a list of plain values stays on one."""
    if isinstance(value, list):
        return any(isinstance(item, dict | list) for item in value)
    return isinstance(value, dict) and bool(value)


def _name(key: str) -> str:
    return key if _PLAIN_NAME.fullmatch(key) else _flow(key)


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "." not in text:
        return text.replace("e", ".0e")
    return tables.visible(text)


def _origin(path: Path_, spans: Spans) -> str:
    span = spans.get(path)
    if span is None:
        return "default"
    return from_here(span.file) + (f":{span.line}" if span.line else "")


def from_here(file: str) -> str:
    """Return a path as seen from the working directory, where that is not a detour."""
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    recipes = package_data.folder("recipes")
    if path.is_absolute() and path.is_relative_to(recipes):
        return f"built-in {path.relative_to(recipes)}"
    return file
