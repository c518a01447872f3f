from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from engine import package_data
from engine.recipe.bundle import bundle

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
def test_every_recipe_without_a_parent_is_valid_in_an_editor(path: Path):
    from engine.recipe.source import read_file

    instance = read_file(path, path.name).plain()
    if "extends" not in instance:
        Draft202012Validator(bundle()).validate(instance)


def test_a_wrong_setting_is_seen_in_an_editor():
    wrong = {
        "recipe": 1,
        "name": "x",
        "base": {"model": "m"},
        "filters": {"pairs": [{"use": "image_size", "min_side": 3}]},
    }

    assert not Draft202012Validator(bundle()).is_valid(wrong)
