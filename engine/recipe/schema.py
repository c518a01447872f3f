"""Checks a tree against a JSON Schema, says every mistake at its place, and fills in defaults.

The validator is jsonschema-rs: built in 0.2 ms, where the Python one takes 13 ms and 180 ms to
import. What it reports is turned into sentences here; its own texts speak of schemas, not recipes.
Three keywords of ours steer the rest: `x-family` (a chosen plug-in stands here), `x-form` (what a
pattern means, in words) and `x-prompt` (the name of a prompt template stands here).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema_rs

from engine import package_data
from engine.diagnostics import Diagnostic, nearest
from engine.recipe import repairs, spellings
from engine.recipe.source import Place
from engine.recipe.subject import Subject, shortened, shown

Schema = Mapping[str, Any]

_MAX_HINTS = 200  # unknown keys of one section that are looked up: no file is read for more


_TYPE_WORDS = {
    "object": "a section",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


@cache
def load(name: str) -> dict[str, Any]:
    """Return the schema `<name>.schema.json` of this installation."""
    path = package_data.folder("schemas") / f"{name}.schema.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def mistakes(instance: Any, schema: Schema, subject: Subject) -> list[Diagnostic]:
    """Return every way in which an instance breaks a schema."""
    errors = list(_validator(schema).iter_errors(instance))
    of_type = {tuple(error.instance_path) for error in errors if error.kind.name == "type"}
    return [
        diagnostic
        for error in errors
        if error.kind.name == "type" or tuple(error.instance_path) not in of_type
        for diagnostic in _diagnostics(error, schema, subject)
    ]


_validators: dict[int, tuple[Schema, Any]] = {}  # by identity: the schema is kept with it


def _validator(schema: Schema) -> Any:
    """Return the validator of a schema, built once: the arms of a matrix share theirs."""
    known = _validators.get(id(schema))
    if known is None:
        known = _validators[id(schema)] = schema, jsonschema_rs.validator_for(dict(schema))
    return known[1]


def filled(instance: Any, schema: Schema, root: Schema) -> Any:
    """Return a valid instance with the schema's defaults filled in."""
    schema = resolved(schema, root)
    if isinstance(instance, Mapping):
        return _filled_section(instance, schema, root)
    if isinstance(instance, list) and "items" in schema:
        return [filled(item, schema["items"], root) for item in instance]
    return instance


def default(name: str, *place: str) -> Any:
    """Return the default that the schema `name` gives to a value."""
    root = load(name)
    part: Schema = root
    for step in place:
        part = resolved(resolved(part, root)["properties"][step], root)
    return part["default"]


def marked(
    instance: Any, schema: Schema, root: Schema, keyword: str, place: Place = ()
) -> Iterator[tuple[Any, Place, Any]]:
    """Yield (mark, place, value) wherever the schema marks a value with `keyword`."""
    schema = resolved(schema, root)
    if keyword in schema and instance is not None:
        yield schema[keyword], place, instance
    if isinstance(instance, Mapping):
        for name, part in schema.get("properties", {}).items():
            if name in instance:
                yield from marked(instance[name], part, root, keyword, (*place, name))
    elif isinstance(instance, list) and "items" in schema:
        for index, item in enumerate(instance):
            yield from marked(item, schema["items"], root, keyword, (*place, index))


def resolved(schema: Schema, root: Schema) -> Schema:
    """Follow `$ref`; keywords beside it win."""
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _filled_section(instance: Mapping[str, Any], schema: Schema, root: Schema) -> dict[str, Any]:
    parts = schema.get("properties", {})
    result = {k: v for k, v in instance.items() if k not in parts}
    for name, part in parts.items():
        if name in instance:
            result[name] = filled(instance[name], part, root)
        elif "default" in (known := resolved(part, root)):
            result[name] = filled(known["default"], part, root)
    return result


def _diagnostics(error: Any, schema: Schema, subject: Subject) -> list[Diagnostic]:
    """Turn one error of the validator into diagnostics."""
    broken = _schema_at(schema, error.schema_path[:-1])
    found = _Found(tuple(error.instance_path), error.instance, error.kind, broken, schema)
    keyword = error.kind.name
    say = _SAYINGS.get(keyword)
    if say is not None:
        return say(found, subject)
    name = subject.section(found.place)
    return [Diagnostic("wrong-value", f"{name}: {error.message}", subject.value(*found.place))]


@dataclass(frozen=True, slots=True)
class _Found:
    place: Place
    value: Any
    kind: Any
    schema: Schema  # the part that is broken
    root: Schema


def _schema_at(schema: Schema, path: list[Any]) -> Schema:
    part: Any = schema
    for step in path:
        part = part[step]
    return part if isinstance(part, Mapping) else {}


def _unknown_keys(found: _Found, subject: Subject) -> list[Diagnostic]:
    known = list(resolved(found.schema, found.root).get("properties", {}))
    whole = f"a {_key_word(found.place, subject)} of {subject.section(found.place)}"
    result = []
    for index, key in enumerate(found.kind.unexpected):
        hint = _hint_for_key(key, known, found, subject) if index < _MAX_HINTS else None
        message = f"`{shortened(key)}` is not {whole}"
        span = subject.key(*found.place, key)
        fix = repairs.of_key(key, known, found.value, found.place, subject) if hint else None
        result.append(Diagnostic("unknown-key", message, span, hint, fix=fix))
    return result


def _hint_for_key(key: str, known: list[str], found: _Found, subject: Subject) -> str | None:
    return spellings.hint_for_key(
        shortened(key),
        known,
        _homes(key, found.root),
        section=subject.name(found.place),
        is_recipe=subject.is_recipe,
    )


def _homes(key: str, root: Schema) -> list[str]:
    """Return the sections of a schema that have a key of this name, as people call them."""
    parts = root.get("properties", {})
    top = ["the recipe itself"] if key in parts else []
    return top + [
        f"`{name}`"
        for name, part in parts.items()
        if key in resolved(part, root).get("properties", {}) and "x-family" not in part
    ]


def _key_word(place: Place, subject: Subject) -> str:
    return "setting" if not place and subject.at else "key"


def _missing_key(found: _Found, subject: Subject) -> list[Diagnostic]:
    key = found.kind.property
    if _is_misspelt(key, found):
        return []  # the unknown key is the mistake
    part = resolved(found.schema.get("properties", {}).get(key, {}), found.root)
    hint = f"{key}: {part['description']}" if "description" in part else None
    other = next((word for word in found.value if spellings.meant(word, [key])), None)
    if key == "use" and other is not None:
        hint = f"a plug-in is chosen with `use`: write it for `{other}`"
    message = f"{subject.section(found.place)} needs the key `{key}`"
    return [Diagnostic("missing-key", message, subject.key(*found.place), hint)]


def _is_misspelt(key: str, found: _Found) -> bool:
    known = found.schema.get("properties", {})
    is_closed = found.schema.get("additionalProperties") is False
    others = [k for k in found.value if k not in known]
    return is_closed and any(key in (spellings.meant(k, known), nearest(k, known)) for k in others)


def _wrong_type(found: _Found, subject: Subject) -> list[Diagnostic]:
    wanted = found.schema.get("type", ())
    types = [wanted] if isinstance(wanted, str) else list(wanted)
    words = " or ".join(_TYPE_WORDS[name] for name in types)
    message = f"{subject.section(found.place)} must be {words}, not {shown(found.value)}"
    hint = spellings.hint_for_type(types, found.value, "x-family" in found.schema)
    fix = repairs.of_value(types, found.value, found.schema, found.place, subject)
    return [Diagnostic("wrong-type", message, subject.value(*found.place), hint, fix=fix)]


def _wrong_choice(found: _Found, subject: Subject) -> list[Diagnostic]:
    choices = found.schema["enum"]
    message = (
        f"{subject.section(found.place)} must be one of {_listed(choices)}, "
        f"not {shown(found.value)}"
    )
    hint = spellings.hint_for_choice(found.value, [str(choice) for choice in choices])
    return [Diagnostic("wrong-value", message, subject.value(*found.place), hint)]


def _bounded(words: str) -> Callable[[_Found, Subject], list[Diagnostic]]:
    def say(found: _Found, subject: Subject) -> list[Diagnostic]:
        limit = shown(found.kind.limit)
        message = (
            f"{subject.section(found.place)} must be {words} {limit}, not {shown(found.value)}"
        )
        return [Diagnostic("out-of-range", message, subject.value(*found.place))]

    return say


def _wrong_form(found: _Found, subject: Subject) -> list[Diagnostic]:
    form = found.schema.get("x-form", "of another form")
    message = f"{subject.section(found.place)} must be {form}, not {shown(found.value)}"
    return [Diagnostic("wrong-value", message, subject.value(*found.place))]


def _wrong_key_form(found: _Found, subject: Subject) -> list[Diagnostic]:
    key = found.kind.error.instance
    form = found.schema.get("propertyNames", found.schema).get("x-form", "of another form")
    message = f"a key of {subject.section(found.place)} must be {form}, not `{key}`"
    return [Diagnostic("wrong-value", message, subject.key(*found.place, key))]


def _wrong_constant(found: _Found, subject: Subject) -> list[Diagnostic]:
    message = (
        f"{subject.section(found.place)} must be {shown(found.schema['const'])}, "
        f"not {shown(found.value)}"
    )
    return [Diagnostic("wrong-value", message, subject.value(*found.place))]


def _too_few(found: _Found, subject: Subject) -> list[Diagnostic]:
    message = f"{subject.section(found.place)} must not be empty"
    return [Diagnostic("out-of-range", message, subject.value(*found.place))]


def _repeated(found: _Found, subject: Subject) -> list[Diagnostic]:
    seen: list[Any] = []
    result = []
    for index, item in enumerate(found.value):
        if item in seen:
            message = f"{subject.section(found.place)} lists {shown(item)} twice"
            span = subject.value(*found.place, index)
            result.append(Diagnostic("wrong-value", message, span, "keep one of them"))
        seen.append(item)
    return result


_SAYINGS: dict[str, Callable[[_Found, Subject], list[Diagnostic]]] = {
    "additionalProperties": _unknown_keys,
    "required": _missing_key,
    "type": _wrong_type,
    "enum": _wrong_choice,
    "const": _wrong_constant,
    "minimum": _bounded("at least"),
    "maximum": _bounded("at most"),
    "exclusiveMinimum": _bounded("more than"),
    "exclusiveMaximum": _bounded("less than"),
    "pattern": _wrong_form,
    "propertyNames": _wrong_key_form,
    "minItems": _too_few,
    "minLength": _too_few,
    "minProperties": _too_few,
    "uniqueItems": _repeated,
}


def _listed(choices: list[Any]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices)
