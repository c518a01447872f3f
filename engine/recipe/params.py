"""A plug-in's `Params` as JSON Schema, and the check of every `use:` against it.

The fragment is derived from the dataclass: types, bounds, prose and defaults have one home, the
plug-in's file. A chosen plug-in is found by name first and only then checked; `oneOf` over a whole
family could say no more than that none of them fits.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Union, get_args, get_origin

from engine import plugin
from engine.diagnostics import Diagnostic, nearest
from engine.plugin import AtLeast, Between, Family, PromptWith, Use
from engine.recipe import schema as schemas
from engine.recipe.schema import Schema
from engine.recipe.source import Place
from engine.recipe.subject import Subject, shortened

_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}
_SINGULAR = {family: family.removesuffix("s") for family in plugin.FAMILIES}

PROMPT_FORM = {"pattern": "^[a-z0-9_]+@[0-9]+$", "x-form": "`name@version`, such as `bare@1`"}


@cache
def fragment(family: str, name: str) -> dict[str, Any]:
    """Return the schema of a plug-in's settings, without `use`."""
    return schema_of(plugin.load(family, name).params)


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type that `plugin.bind` can build."""
    inner, marks = plugin.unwrap(kind)
    result = _bare_schema(inner, marks)
    for mark in marks:
        if isinstance(mark, str):
            result["description"] = mark
        elif isinstance(mark, Between):
            result |= {"minimum": mark.low, "maximum": mark.high}
        elif isinstance(mark, AtLeast):
            result["minItems" if "items" in result else "minimum"] = mark.low
        elif isinstance(mark, PromptWith):
            result |= {**PROMPT_FORM, "x-prompt": list(mark.variables)}
    return result


def mistakes_in_uses(
    instance: Any, schema: Schema, root: Schema, subject: Subject
) -> list[Diagnostic]:
    """Return the mistakes in the settings of every plug-in that an instance chooses."""
    result: list[Diagnostic] = []
    for family, place, value in schemas.marked(instance, schema, root, "x-family"):
        if isinstance(value, Mapping) and isinstance(value.get("use"), str):
            result += _mistakes_in_use(family, value, place, subject)
    return result


@dataclass(frozen=True, slots=True)
class PromptUse:
    """A prompt template that a recipe names, and the variables that it will be given there."""

    place: Place
    name: str
    variables: frozenset[str]


def prompts_named(instance: Any, schema: Schema, root: Schema) -> list[PromptUse]:
    """Return every prompt template that an instance names, those in plug-in settings included."""
    found = [
        PromptUse(place, value, frozenset(variables))
        for variables, place, value in schemas.marked(instance, schema, root, "x-prompt")
        if isinstance(value, str)
    ]
    for family, place, value in schemas.marked(instance, schema, root, "x-family"):
        if isinstance(value, Mapping) and value.get("use") in plugin.names(family):
            part = fragment(family, value["use"])
            settings = {k: v for k, v in value.items() if k != "use"}
            inner = prompts_named(settings, part, part)
            found += [replace(use, place=(*place, *use.place)) for use in inner]
    return found


def unknown_names(instance: Any, frame: Schema, subject: Subject) -> list[Diagnostic]:
    """Return a diagnostic for every plug-in that is named without `use` and does not exist."""
    return [
        unknown_plugin(family, name, place, subject)
        for family, place, name in schemas.marked(instance, frame, frame, "x-plugin-name")
        if isinstance(name, str) and name not in plugin.names(family)
    ]


def unknown_plugin(family: str, name: str, place: Place, subject: Subject) -> Diagnostic:
    """Return the diagnostic for a name that is no plug-in of a family."""
    known = plugin.names(family)
    close = nearest(name, known)
    listed = ", ".join(f"`{choice}`" for choice in known) or "none"
    return Diagnostic(
        "unknown-plugin",
        f"there is no {_SINGULAR[family]} `{shortened(name)}`",
        subject.value(*place),
        f"did you mean `{close}`?" if close else f"known {family}: {listed}",
    )


def _mistakes_in_use(
    family: str, value: Mapping[str, Any], place: Place, subject: Subject
) -> list[Diagnostic]:
    name = value["use"]
    if name not in plugin.names(family):
        return [unknown_plugin(family, name, (*place, "use"), subject)]
    part = fragment(family, name)
    settings = {key: item for key, item in value.items() if key != "use"}
    inner = Subject(subject.places, (*subject.at, *place), f"{_SINGULAR[family]} `{name}`")
    return [
        *schemas.mistakes(settings, part, inner),
        *mistakes_in_uses(settings, part, part, inner),
    ]


def _bare_schema(kind: Any, marks: tuple[Any, ...]) -> dict[str, Any]:
    if kind is Use:
        return _use_schema(next(mark.name for mark in marks if isinstance(mark, Family)))
    if dataclasses.is_dataclass(kind):
        return _dataclass_schema(typing.cast(type, kind))
    if plugin.is_literal(kind):
        return {"enum": list(get_args(kind))}
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _union_schema(kind)
    if origin is tuple:
        return {"type": "array", "items": schema_of(get_args(kind)[0])}
    if origin is not None and plugin.issubclass_safe(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(get_args(kind)[1])}
    return {"type": _NAMES[kind]} if kind in _NAMES else {}


def _use_schema(family: str) -> dict[str, Any]:
    which = f"Which {_SINGULAR[family]}: the name of a file in engine/{family}."
    name = {"type": "string", "description": which}
    return {
        "type": "object",
        "required": ["use"],
        "properties": {"use": name},
        "x-family": family,
    }


def _dataclass_schema(kind: type) -> dict[str, Any]:
    hints = plugin.hints_of(kind)
    fields = dataclasses.fields(kind)
    properties = {field.name: _field_schema(field, hints[field.name]) for field in fields}
    required = [field.name for field in fields if not plugin.has_default(field)]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": required} if required else {}),
    }


def _field_schema(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    result = schema_of(hint)
    if plugin.has_default(field):
        result["default"] = default_of(field)
    return result


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field as JSON, as it would stand in a recipe."""
    if field.default is not dataclasses.MISSING:
        return as_written(plugin.unbind(field.default))
    assert field.default_factory is not dataclasses.MISSING
    return as_written(plugin.unbind(field.default_factory()))


def as_written(value: Any) -> Any:
    """Return bound JSON as a recipe may hold it: a chosen plug-in without its version."""
    if isinstance(value, Mapping):
        chosen = "use" in value
        return {k: as_written(v) for k, v in value.items() if not (chosen and k == "version")}
    return [as_written(item) for item in value] if isinstance(value, list) else value


def _union_schema(kind: Any) -> dict[str, Any]:
    options = [schema_of(option) for option in get_args(kind)]
    merged: dict[str, Any] = {}
    names: list[str] = []
    for option in options:
        names.append(option.pop("type", None) or "string")
        merged |= option
    if "enum" in merged:
        return {"enum": [*merged["enum"], None]}
    return merged | {"type": names}
