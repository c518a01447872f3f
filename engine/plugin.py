"""What a plug-in is: a file in a family's folder that exports one value, with typed settings.

`use: near_duplicate` in `filters.pairs` means the value `PLUGIN` of the file
`engine/filters/near_duplicate.py` and nothing else: no registry, no import path from YAML.
Settings are a frozen dataclass `Params`
whose fields carry bounds and prose in `Annotated`; the JSON Schema fragment is derived from it, and
so is what enters a key (fields marked `Neutral` stay out).
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

FAMILIES = ("sources", "filters", "backends", "scorers", "models")


class Between(NamedTuple):
    """Inclusive bounds of a number."""

    low: float
    high: float


class AtLeast(NamedTuple):
    """Inclusive lower bound of a number, or the fewest items of a tuple."""

    low: float


class PromptWith(NamedTuple):
    """Marks the name of a prompt template with the variables that the template is given."""

    variables: tuple[str, ...]


class Neutral:
    """Marks a field that cannot change a result (batch size, workers): recorded, not in the key."""


class Family(NamedTuple):
    """Marks a `Use` field with the plug-in family it chooses from."""

    name: str


@dataclass(frozen=True, slots=True)
class Use:
    """A chosen plug-in, its defaults filled in. JSON: `{use, version, ...settings}`."""

    name: str
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterUse:
    """A LoRA adapter; it is named, pinned and locked as a model is."""

    model: Annotated[str, "A folder (`./...`) or a hub id."]
    revision: Annotated[str | None, "Commit or tag of a hub adapter."] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """A model and the backend that runs it."""

    model: Annotated[str, "`pocket/<name>` (embedded), a folder (`./...`), or a hub id."]
    revision: Annotated[str | None, "Commit or tag of a hub model."] = None
    trust_remote_code: Annotated[bool, "Run Python code that comes with the model."] = False
    adapter: Annotated[AdapterUse | None, "A LoRA adapter on top of the model."] = None
    backend: Annotated[Use, Family("backends"), "What runs the model."] = field(
        default_factory=lambda: Use("transformers")
    )


class Plugin(typing.Protocol):
    """What every exported value has: a version that moves its keys, and a settings type."""

    version: int
    params: type


@cache
def names(family: str) -> tuple[str, ...]:
    """Return the plug-in names of a family: the file names in its folder."""
    folder = Path(__file__).parent / family
    return tuple(sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")))


def load(family: str, name: str) -> Any:
    """Return the value that a plug-in file exports. Raise KeyError for an unknown name."""
    if family not in FAMILIES or name not in names(family):
        raise KeyError(f"{family}/{name}")
    return importlib.import_module(f"engine.{family}.{name}").PLUGIN


def about(family: str, name: str) -> str:
    """Return the first line of a plug-in file's docstring."""
    load(family, name)
    module = importlib.import_module(f"engine.{family}.{name}")
    return (module.__doc__ or "").strip().partition("\n")[0]


def settings_of(family: str, use: Use) -> Any:
    """Return the settings of a chosen plug-in as its `Params`."""
    return bind(load(family, use.name).params, use.settings)


def bind(kind: Any, value: Any) -> Any:
    """Build a value of type `kind` from validated JSON; fills defaults, casts int to float.

    Raises TypeError or ValueError when the JSON was not validated and does not fit.
    """
    kind, marks = unwrap(kind)
    if kind is Use:
        return _bind_use(value, marks)
    if dataclasses.is_dataclass(kind):
        return _bind_dataclass(typing.cast(type, kind), value)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _bind_union(kind, value)
    if origin is tuple:
        return tuple(bind(get_args(kind)[0], item) for item in value)
    if origin is not None and issubclass_safe(origin, Mapping):
        return {key: bind(get_args(kind)[1], item) for key, item in value.items()}
    if kind is float:
        return float(value)
    if kind is int and isinstance(value, float):
        return int(value)  # 2.0 is a whole number in JSON Schema; a key must not tell them apart
    return value


def unbind(value: Any, *, with_neutral: bool = True, kind: Any = None) -> Any:
    """Return the canonical JSON of a bound value; `with_neutral=False` gives what enters a key.

    `kind` is the type that the value is declared with: it names the family of a plug-in's choice.
    """
    if isinstance(value, Use):
        family = None if with_neutral else _family_of(kind)
        return _unbind_use(value) if family is None else key_settings(family, value)
    if hasattr(type(value), "__dataclass_fields__"):
        return {
            name: unbind(getattr(value, name), with_neutral=with_neutral, kind=hint)
            for name, hint, is_out in _fields_of(value.__class__)
            if with_neutral or not is_out
        }
    if isinstance(value, Mapping):
        return {k: unbind(v, with_neutral=with_neutral, kind=kind) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [unbind(item, with_neutral=with_neutral, kind=kind) for item in value]
    return value


@cache
def _fields_of(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    """Return name, type and neutrality of each field of a dataclass."""
    hints = hints_of(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return tuple((name, hints[name], is_neutral(hints[name])) for name in names)


def is_neutral(kind: Any) -> bool:
    """Tell whether a field's type carries the mark `Neutral()`."""
    return any(isinstance(mark, Neutral) for mark in unwrap(kind)[1])


def key_settings(family: str, use: Use) -> dict[str, Any]:
    """Return what a chosen plug-in adds to a key: name, version and settings that matter."""
    settings = unbind(settings_of(family, use), with_neutral=False)
    return {"use": use.name, "version": use.version, **settings}


def bound_use(family: str, value: Mapping[str, Any]) -> Use:
    """Bind `{use: name, ...settings}` of a recipe: defaults filled, the plug-in's version set."""
    plugin = load(family, value["use"])
    settings = {k: v for k, v in value.items() if k not in ("use", "version")}
    return Use(value["use"], plugin.version, unbind(bind(plugin.params, settings)))


def unwrap(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split `Annotated[T, marks...]` into T and its marks."""
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        return inner, tuple(marks)
    return kind, ()


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """Return the field types of a dataclass with their marks."""
    return typing.get_type_hints(kind, include_extras=True)


def has_default(item: dataclasses.Field[Any]) -> bool:
    """Tell whether a dataclass field may be left out."""
    return item.default is not MISSING or item.default_factory is not MISSING


def issubclass_safe(kind: Any, parent: type) -> bool:
    """Like issubclass, but False for what is not a class."""
    return isinstance(kind, type) and issubclass(kind, parent)


def _family_of(kind: Any) -> str | None:
    """Return the family that a type, or a type inside it, chooses from."""
    inner, marks = unwrap(kind)
    named = (mark.name for mark in marks if isinstance(mark, Family))
    within = (_family_of(part) for part in get_args(inner))
    return next(named, None) or next((family for family in within if family), None)


def _bind_use(value: Any, marks: tuple[Any, ...]) -> Use:
    if isinstance(value, Use):
        return value
    family = next(mark.name for mark in marks if isinstance(mark, Family))
    return bound_use(family, value)


def _bind_dataclass(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    hints = hints_of(kind)
    unknown = set(value) - set(hints)
    if unknown:
        raise TypeError(f"unknown settings {sorted(unknown)} of {kind.__name__}")
    return kind(**{name: bind(hints[name], item) for name, item in value.items()})


def _bind_union(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    options = [option for option in get_args(kind) if option is not types.NoneType]
    return bind(options[0], value) if len(options) == 1 else value


def _unbind_use(value: Use) -> dict[str, Any]:
    return {"use": value.name, "version": value.version, **unbind(dict(value.settings))}


def is_literal(kind: Any) -> bool:
    """Tell whether a type is a `Literal[...]`."""
    return get_origin(kind) is Literal
