from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine import plugin
from engine.diagnostics import Diagnostic
from engine.plugin import Use
from engine.recipe import schema, spellings
from engine.recipe.model import BenchmarkSpec, Recipe
from engine.recipe.source import places, read
from engine.recipe.subject import Subject

RIGHT = "recipe: 1\nname: x\nbase:\n  model: a/b\n"
FRAMES = ("recipe", "benchmark", "diagnostics")


def mistakes_of(text: str) -> list[Diagnostic]:
    tree = read(text, "r.yaml")
    return schema.mistakes(tree.plain(), schema.load("recipe"), Subject(places(tree)))


def mistake_of(text: str) -> tuple[str, str, str | None]:
    (found,) = mistakes_of(text)
    return found.code, str(found.span), found.hint


def test_a_right_recipe_has_no_mistakes():
    assert mistakes_of(RIGHT) == []


def test_unknown_key_points_at_the_key():
    text = RIGHT + "training:\n  lerning_rate: 1\n"

    assert mistake_of(text) == ("unknown-key", "r.yaml:6:3", "did you mean `learning_rate`?")


def test_every_unknown_key_gets_its_own_diagnostic():
    found = mistakes_of(RIGHT + "training: {foo: 1, bar: 2}\nqux: 3\n")

    assert {str(d.span) for d in found} == {"r.yaml:5:12", "r.yaml:5:20", "r.yaml:6:1"}


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("base: {model: x, lora_r: 8}", "base.lora.rank"),
        ("base: {model: x, lora: {r: 8}}", "base.lora.rank"),
        ("base: {model: x, lora_target_modules: all}", "base.lora.targets"),
        ("base: {model: x, freeze_vision_tower: true}", "base.train"),
        ("base: {model: x}\ntraining: {cutoff_len: 1}", "training.max_length"),
        ("base: {model: x}\ntraining: {sequence_len: 1}", "training.max_length"),
        ("base: {model: x}\ntraining: {num_epochs: 1}", "training.num_train_epochs"),
        (
            "base: {model: x}\ntraining: {micro_batch_size: 1}",
            "training.per_device_train_batch_size",
        ),
        ("base: {model: x}\nmodel_name_or_path: y", "base.model"),
        ("base: {model: x}\ndatasets: []", "source"),
    ],
)
def test_peers_spellings_are_hints_and_never_accepted(line: str, ours: str):
    code, _, hint = mistake_of(f"recipe: 1\nname: x\n{line}\n")

    assert code == "unknown-key"
    assert f"`{ours}` here" in (hint or "")


def test_every_suggested_spelling_exists_in_the_schema():
    root = schema.load("recipe")
    for ours in spellings.OURS.values():
        part: Any = root
        for step in ours.split("."):
            part = schema.resolved(part["properties"][step], root)


def test_wrong_value_points_at_the_value():
    code, span, hint = mistake_of(RIGHT.replace("model: a/b", "model: 3"))

    assert (code, span) == ("wrong-type", "r.yaml:4:10")
    assert hint == 'quote it to make it a text: "3"'


@pytest.mark.parametrize(
    ("line", "code", "hint"),
    [
        ("training: {gradient_checkpointing: yes}", "wrong-type", "write `true`"),
        ("training: {learning_rate: '1e-4'}", "wrong-type", "no quotes"),
        ("training: {learning_rate: fast}", "wrong-type", ""),
        ("training: {learning_rate: -1}", "out-of-range", ""),
        ("training: {global_batch_size: 0}", "out-of-range", ""),
        ("training: {global_batch_size: 1.5}", "wrong-type", ""),
        ("training: {adam_beta1: 1}", "out-of-range", ""),
        ("training: {lr_scheduler_type: cosin}", "wrong-value", "`cosine`"),
        ("training: 3", "wrong-type", ""),
        ("benchmarks: {domain: slake}", "wrong-type", "[slake]"),
        ("benchmarks: {domain: [a, b, a]}", "wrong-value", "keep one"),
        ("source: hub", "wrong-type", "{use: hub}"),
        ("source: {path: x}", "missing-key", "use:"),
        ("generator: {prompt: p@1}", "missing-key", "model:"),
        ("generator: {model: m, prompt: synthesize}", "wrong-value", ""),
        ("filters: {pairs: {use: x}}", "wrong-type", ""),
        ("filters: {pairs: [3]}", "wrong-type", ""),
        ("matrix: {}", "out-of-range", ""),
        ("matrix: {A b: {}}", "wrong-value", ""),
        ("matrix: {a: 1}", "wrong-type", ""),
        ("output_dir: x", "unknown-key", "--store"),
    ],
)
def test_each_kind_of_mistake_has_its_code_and_way_out(line: str, code: str, hint: str):
    (found,) = mistakes_of(RIGHT + line + "\n")

    assert found.code == code
    assert hint in (found.hint or "")
    assert found.span is not None
    assert found.span.line == 5


def test_a_missing_key_points_at_its_section():
    text = "recipe: 1\nname: x\nbase:\n  method: full\n"

    assert mistake_of(text)[:2] == ("missing-key", "r.yaml:3:1")


def test_a_misspelt_key_is_one_mistake_and_not_two():
    assert mistake_of("recipe: 1\nname: x\nbase: {modle: m}\n")[0] == "unknown-key"


def test_a_missing_section_points_at_the_top():
    assert mistake_of("recipe: 1\nname: x\n")[:2] == ("missing-key", "r.yaml:1:1")


def test_a_file_that_is_no_section_is_one_mistake():
    assert mistake_of("- 1\n- 2\n")[0] == "wrong-type"


def test_a_recipe_of_a_later_version_says_so():
    assert mistake_of(RIGHT.replace("recipe: 1", "recipe: 2"))[:2] == ("wrong-value", "r.yaml:1:9")


WRONG = (
    "{}",
    "[]",
    "recipe: 2\nname: X\nbase: {modle: x}\n",
    RIGHT + "training: {learning_rate: -1, max_length: 3, precision: half, foo: 1}\n",
    RIGHT + "filters: {pairs: [{x: 1}, 3], tasks: no}\nbenchmarks: {domain: [1, 1]}\n",
    RIGHT + "mix: {parts: {captions: -1, foo: 1}, replay: {x: 1}}\nmatrix: {A: 3}\n",
    RIGHT + "generator: {prompt: x, tune: {blank_ratio: 2}}\nsource: {use: 3}\n",
)


@pytest.mark.parametrize("text", WRONG)
def test_the_python_validator_finds_the_same_mistakes(text: str):
    import jsonschema_rs

    instance, frame = read(text, "").plain(), schema.load("recipe")
    ours = {
        (tuple(e.instance_path), e.kind.name)
        for e in jsonschema_rs.validator_for(frame).iter_errors(instance)
    }
    theirs = {
        (tuple(e.absolute_path), _outermost_keyword(e))
        for e in Draft202012Validator(frame).iter_errors(instance)
    }

    assert ours == theirs
    assert len(ours) > 0


def _outermost_keyword(error: Any) -> str:
    return "propertyNames" if "propertyNames" in error.absolute_schema_path else error.validator


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_valid_schemas_with_prose_for_every_field(name: str):
    frame = schema.load(name)
    Draft202012Validator.check_schema(frame)

    assert [place for place, part in _fields(frame) if not part.get("description")] == []
    assert [place for place, part in _fields(frame) if "title" not in part and place != "use"] == []


def _fields(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        for name, field in part.get("properties", {}).items():
            yield name, {"description": "$ref", "title": "$ref"} if "$ref" in field else field
        for item in part.values():
            yield from _fields(item)


def test_schema_and_dataclasses_have_the_same_fields():
    root = schema.load("recipe")
    only_in_text = {"recipe", "extends", "matrix"}
    only_bound = {"benchmark_specs", "folder", "spans"}

    assert set(root["properties"]) - only_in_text == set(plugin.hints_of(Recipe)) - only_bound
    for name, kind in plugin.hints_of(Recipe).items():
        if name not in only_bound:
            _assert_parity(kind, root["properties"][name], root)


def test_benchmark_schema_and_dataclass_have_the_same_fields():
    root = schema.load("benchmark")

    assert {"name", *root["properties"]} == set(plugin.hints_of(BenchmarkSpec))


def _assert_parity(kind: Any, part: Any, root: Any) -> None:
    part = schema.resolved(part, root)
    for option in (kind, *typing.get_args(kind)):
        inner, _ = plugin.unwrap(option)
        if inner is Use:
            assert "x-family" in schema.resolved(part.get("items", part), root)
        elif dataclasses.is_dataclass(inner) and isinstance(inner, type):
            assert set(part["properties"]) == set(plugin.hints_of(inner))
            for name, hint in plugin.hints_of(inner).items():
                _assert_parity(hint, part["properties"][name], root)


def test_every_default_is_valid_and_every_optional_field_has_one():
    root = schema.load("recipe")
    instance = {"recipe": 1, "name": "x", "base": {"model": "m"}, "generator": {"model": "m"}}
    filled = schema.filled(instance, root, root)

    assert schema.mistakes(filled, root, Subject({})) == []
    assert filled["training"]["learning_rate"] == 1e-5
    assert filled["generator"]["prompt"] == "synthesize@1"
    assert filled["base"]["backend"] == {"use": "transformers"}


def test_filling_defaults_twice_changes_nothing():
    root = schema.load("recipe")
    once = schema.filled({"recipe": 1, "name": "x", "base": {"model": "m"}}, root, root)

    assert schema.filled(once, root, root) == once
