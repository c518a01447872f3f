from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine import package_data
from engine.recipe import schema
from engine.recipe.bundle import benchmark_bundle, bundle

RECIPES = sorted(package_data.folder("recipes").glob("*.yaml"))


def test_the_committed_bundle_is_fresh():
    """After a change of a plug-in: `adapt schema bundle > schemas/bundle.schema.json`."""
    path = package_data.folder("schemas") / "bundle.schema.json"

    assert json.loads(path.read_text("utf-8")) == bundle()


def test_the_bundle_is_a_valid_schema_without_our_own_keywords():
    found = bundle()
    Draft202012Validator.check_schema(found)

    assert '"x-' not in json.dumps(found)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_in_an_editor_with_or_without_a_parent(path: Path):
    from engine.recipe.source import read_file

    Draft202012Validator(bundle()).validate(read_file(path, path.name).plain())


def errors_of(instance: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(bundle()).iter_errors(instance)]


def test_a_whole_recipe_needs_what_a_child_takes_from_its_parent():
    part = {"recipe": 1, "name": "x", "source": {"split": "test"}, "generator": {}}

    assert errors_of({**part, "extends": "parent.yaml"}) == []
    assert errors_of(part) == [
        "'base' is a required property",
        "'use' is a required property",
        "'model' is a required property",
    ]


def test_an_item_of_a_list_is_complete_in_a_child_too():
    tasks = [{"use": "consistency", "prompt": "consistency@2"}]
    child = {"recipe": 1, "name": "x", "extends": "parent.yaml", "filters": {"tasks": tasks}}

    assert errors_of(child) == ["'judge' is a required property"]


def test_an_arm_knows_the_keys_of_a_recipe():
    recipe = {"recipe": 1, "name": "x", "extends": "p.yaml"}
    right = {"mix.pipeline": "two_stage", "filters.pairs[0].min_side_px": 3, "source.split": "a"}

    assert errors_of({**recipe, "matrix": {"arm": right}}) == []
    assert errors_of({**recipe, "matrix": {"arm": {"mix.pipeline": "three_stage"}}})
    assert errors_of({**recipe, "matrix": {"arm": {"mix.pipelin": "two_stage"}}})


@pytest.mark.parametrize("made", [bundle, benchmark_bundle])
def test_every_key_has_prose_to_show(made: Any):
    root = made()
    bare = []
    for name, part in [("", root), *root["$defs"].items()]:
        for key, item in part.get("properties", {}).items():
            if "const" not in item and "description" not in schema.resolved(item, root):
                bare.append(f"{name}.{key}")

    assert [key for key in bare if not key.startswith("arm.")] == []


def test_no_default_is_null_for_editors_stop_at_one():
    assert '"default": null' not in json.dumps(bundle())


def test_a_wrong_setting_is_seen_in_an_editor():
    wrong = {
        "recipe": 1,
        "name": "x",
        "base": {"model": "m"},
        "filters": {"pairs": [{"use": "image_size", "min_side": 3}]},
    }

    assert not Draft202012Validator(bundle()).is_valid(wrong)


def test_no_spelling_of_another_tool_is_a_key():
    text = json.dumps(bundle())

    for spelling in (
        "lora_r",
        "cutoff_len",
        "sequence_len",
        "model_name_or_path",
        "micro_batch_size",
    ):
        assert f'"{spelling}"' not in text
