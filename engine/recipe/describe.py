"""Says in plain words what a part of a schema is: its keys, their types, bounds and defaults.

`adapt schema` prints it, and schemas/README.md is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine import plugin
from engine.recipe import schema as schemas
from engine.recipe.schema import Schema

_WORDS = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a mapping, in words."""

    name: str
    kind: str  # "number", "one of `a`, `b`", "list of texts", ...
    bounds: str  # "0 to 1", "at least 1", or empty
    default: str  # JSON, or empty where there is none
    is_required: bool
    about: str
    family: str | None  # of the plug-in that `use` chooses here

    @property
    def typed(self) -> str:
        """Return kind and bounds together: "number, 0 to 1, or null"."""
        head, null, _ = self.kind.partition(" or null")
        return f"{head}, {self.bounds}{',' + null if null else ''}" if self.bounds else self.kind


def keys_of(part: Schema, root: Schema) -> list[Key]:
    """Return the keys of a mapping, in the order of the schema."""
    part = schemas.resolved(part, root)
    required = part.get("required", ())
    properties = part.get("properties", {})
    return [key_of(name, item, root, name in required) for name, item in properties.items()]


def key_of(name: str, item: Schema, root: Schema, is_required: bool = False) -> Key:
    """Return what a key is."""
    part = schemas.resolved(item, root)
    default = part.get("default", _NOTHING)
    return Key(
        name,
        _kind(part, root),
        _bounds(part),
        "" if default is _NOTHING else shown(default),
        is_required,
        part.get("description", ""),
        part.get("x-family") or schemas.resolved(part.get("items", {}), root).get("x-family"),
    )


def part_at(place: tuple[str, ...], root: Schema) -> Schema:
    """Return the part of a schema under dotted keys. Raise KeyError with the place that is not."""
    part = root
    for index, name in enumerate(place):
        inner = schemas.resolved(part, root).get("properties", {})
        if name not in inner:
            raise KeyError(place[: index + 1])
        part = inner[name]
    return part


def sections_of(part: Schema, root: Schema, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the place of every mapping with keys of its own, outer ones first."""
    for name, item in schemas.resolved(part, root).get("properties", {}).items():
        inner = schemas.resolved(item, root)
        if "properties" in inner and "x-family" not in inner:
            yield (*at, name)
            yield from sections_of(item, root, (*at, name))


def shown(value: Any) -> str:
    """Return a value as a recipe would have it on one line."""
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    is_plain = isinstance(value, str) and value != "" and not set(value) & set(" :#[]{},\"'")
    return value if is_plain else json.dumps(value, ensure_ascii=False)


_NOTHING = object()


def _kind(part: Schema, root: Schema) -> str:
    if "const" in part:
        return f"always `{shown(part['const'])}`"
    if "enum" in part:
        return "one of " + ", ".join(f"`{shown(choice)}`" for choice in part["enum"])
    if "x-plugin-name" in part:
        return "one of " + ", ".join(f"`{name}`" for name in plugin.names(part["x-plugin-name"]))
    if "anyOf" in part:
        return " or ".join(_kind(schemas.resolved(choice, root), root) for choice in part["anyOf"])
    types = part.get("type", [])
    listed = [types] if isinstance(types, str) else list(types)
    return " or ".join(_word(name, part, root) for name in listed) or "any value"


def _word(name: str, part: Schema, root: Schema) -> str:
    if name == "array" and "items" in part:
        items = schemas.resolved(part["items"], root)
        return "list of " + _plural(_kind(items, root))
    if name == "object":
        if "x-family" in part:
            return str(part["x-family"]).removesuffix("s")
        values = part.get("additionalProperties")
        if isinstance(values, Mapping) and values:
            return f"mapping of names to {_plural(_kind(schemas.resolved(values, root), root))}"
    if name == "string" and "x-form" in part:
        return str(part["x-form"])
    return _WORDS[name]


def _plural(kind: str) -> str:
    head, comma, rest = kind.partition(" or ")
    if kind.startswith("one of "):
        return kind.removeprefix("one of ")
    return f"{head}s{comma}{rest}" if head in (*_WORDS.values(), "filter", "source") else kind


def _bounds(part: Schema) -> str:
    low, high = part.get("minimum"), part.get("maximum")
    above, below = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{shown(low)} to {shown(high)}"
    said = (
        ("at least", low),
        ("more than", above),
        ("at most", high),
        ("less than", below),
    )
    listed = [f"{words} {shown(limit)}" for words, limit in said if limit is not None]
    return ", ".join([*listed, *(["not empty"] if part.get("minItems") else [])])
