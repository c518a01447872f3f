from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator

from engine import plugin
from engine.diagnostics import Diagnostic
from engine.plugin import AtLeast, Between, Family, ModelUse, Neutral, PromptWith, Use
from engine.recipe import params, schema
from engine.recipe.source import places, read
from engine.recipe.subject import Subject

FILTERS = ("caption_length", "image_size", "near_duplicate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    side_px: Annotated[int, AtLeast(1), "Side."] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    path: Annotated[str, "Where it is."]
    share: Annotated[float, Between(0, 1), "How much."] = 0.3
    way: Annotated[Literal["fast", "slow"], "How."] = "fast"
    maybe_way: Literal["a", "b"] | None = None
    limit: Annotated[int | None, AtLeast(1), "Most rows."] = None
    names: Annotated[tuple[str, ...], AtLeast(1), "Which."] = ("x",)
    batch_size: Annotated[int, Neutral(), "Rows at once."] = 1
    is_on: bool = False
    columns: Mapping[str, int] = field(default_factory=dict)
    inner: Inner = Inner()
    backend: Annotated[Use, Family("backends")] = field(
        default_factory=lambda: Use("transformers", 7, {"batch_size": 2})
    )
    judge: ModelUse | None = None
    prompt: Annotated[str, PromptWith(("question",))] = "bare@1"


def test_a_field_becomes_type_bounds_prose_and_default():
    found = params.schema_of(Settings)

    assert found["required"] == ["path"]
    assert found["additionalProperties"] is False
    assert found["properties"]["path"] == {"type": "string", "description": "Where it is."}
    assert found["properties"]["share"] == {
        "type": "number",
        "description": "How much.",
        "minimum": 0,
        "maximum": 1,
        "default": 0.3,
    }


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("way", {"enum": ["fast", "slow"]}),
        ("maybe_way", {"enum": ["a", "b", None], "default": None}),
        ("limit", {"type": ["integer", "null"], "minimum": 1, "default": None}),
        ("names", {"type": "array", "items": {"type": "string"}, "minItems": 1, "default": ["x"]}),
        ("is_on", {"type": "boolean", "default": False}),
        ("columns", {"type": "object", "additionalProperties": {"type": "integer"}}),
        ("backend", {"x-family": "backends", "default": {"use": "transformers", "batch_size": 2}}),
        ("judge", {"type": ["object", "null"], "required": ["model"]}),
        ("inner", {"type": "object", "additionalProperties": False, "default": {"side_px": 8}}),
        ("prompt", {"x-prompt": ["question"], "default": "bare@1"}),
    ],
)
def test_every_kind_of_field_has_a_schema(name: str, wanted: dict[str, Any]):
    found = params.schema_of(Settings)["properties"][name]

    assert {key: found.get(key) for key in wanted} == wanted


def test_a_nested_model_brings_its_own_prose():
    judge = params.schema_of(Settings)["properties"]["judge"]

    assert "hub id" in judge["properties"]["model"]["description"]
    assert judge["properties"]["backend"]["x-family"] == "backends"


def test_what_the_schema_accepts_can_be_bound():
    part = params.schema_of(Settings)
    validator = Draft202012Validator(part)
    right: list[dict[str, Any]] = [
        {"path": "x"},
        {"path": "x", "share": 1, "limit": 2.0, "names": ["a", "b"], "inner": {"side_px": 3}},
        {"path": "x", "way": "slow", "maybe_way": None, "columns": {"a": 1}, "judge": None},
    ]
    for value in right:
        validator.validate(value)
        bound = plugin.bind(Settings, value)
        assert plugin.bind(Settings, plugin.unbind(bound) | {"backend": bound.backend}) == bound


def test_whole_floats_become_whole_numbers_so_that_keys_agree():
    assert repr(plugin.bind(Settings, {"path": "x", "limit": 2.0}).limit) == "2"


def mistakes_of(text: str) -> list[Diagnostic]:
    tree = read("recipe: 1\nname: x\nbase: {model: m}\n" + text, "r.yaml")
    frame = schema.load("recipe")
    return params.mistakes_in_uses(tree.plain(), frame, frame, Subject(places(tree)))


def test_an_unknown_plugin_gets_the_nearest_name():
    (found,) = mistakes_of("filters:\n  pairs: [{use: image_sise}]\n")

    assert (found.code, str(found.span)) == ("unknown-plugin", "r.yaml:5:17")
    assert found.hint == "did you mean `image_size`?"


def test_a_name_like_no_plugin_gets_the_list():
    (found,) = mistakes_of("filters:\n  pairs: [{use: quality}]\n")

    assert all(f"`{name}`" in (found.hint or "") for name in FILTERS)


def test_an_unknown_setting_points_at_its_key_and_names_the_plugin():
    (found,) = mistakes_of("filters:\n  pairs:\n    - {use: image_size, min_side: 3}\n")

    assert found.message == "`min_side` is not a setting of filter `image_size`"
    assert (str(found.span), found.hint) == ("r.yaml:6:25", "did you mean `min_side_px`?")


def test_a_wrong_setting_points_at_its_value():
    (found,) = mistakes_of("filters:\n  pairs:\n    - {use: image_size, min_side_px: 0}\n")

    assert found.message == "`filters.pairs[0].min_side_px` must be at least 1, not 0"
    assert str(found.span) == "r.yaml:6:38"


def test_a_missing_setting_points_at_the_plugin_that_needs_it():
    (found,) = mistakes_of("source: {use: image_folder}\n")

    assert found.message == "source `image_folder` needs the key `path`"
    assert str(found.span) == "r.yaml:4:1"


def test_the_name_of_another_family_is_not_found():
    (found,) = mistakes_of("source: {use: image_size}\n")

    assert found.message == "there is no source `image_size`"


@pytest.mark.parametrize("family", ["sources", "filters", "backends"])
def test_every_installed_plugin_has_a_valid_schema_with_prose(family: str):
    for name in plugin.names(family):
        part = params.fragment(family, name)
        Draft202012Validator.check_schema(part)
        without = [key for key, item in part["properties"].items() if "description" not in item]
        assert (name, without) == (name, [])
