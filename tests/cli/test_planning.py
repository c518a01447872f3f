from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine import package_data
from engine.cli import planning
from engine.plan.stage import Node
from tests.runtime.fake_stages import PlanBuilder


def node_from(file: str) -> Node:
    build = PlanBuilder()
    build.add("count")
    return replace(build.nodes[0], origin={"file": file, "line": 3, "column": 1})


def portable(file: str, folder: Path) -> str:
    return planning.portable_name(folder, file)


def test_a_recipe_line_is_named_as_seen_from_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "recipes" / "base").mkdir(parents=True)
    for name in ("mine.yaml", "base/parent.yaml"):
        (tmp_path / "recipes" / name).touch()
    (tmp_path / "shared.yaml").touch()
    folder = tmp_path / "recipes"
    monkeypatch.chdir(tmp_path)

    assert portable("recipes/mine.yaml", folder) == "mine.yaml"
    assert portable(f"{folder}/base/parent.yaml", folder) == "base/parent.yaml"
    assert portable("shared.yaml", folder) == "../shared.yaml"


def test_a_line_of_a_recipe_that_came_with_the_engine_is_named_by_it(tmp_path: Path):
    path = package_data.folder("recipes") / "quickstart.yaml"
    name = portable(str(path), tmp_path)

    assert name == "recipes/quickstart.yaml"
    assert Path(planning.origin_of(node_from(name), tmp_path).file).resolve() == path


def test_an_override_keeps_its_words(tmp_path: Path):
    assert portable("--set base.model", tmp_path) == "--set base.model"


def test_a_recipe_line_can_be_opened_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)

    span = planning.origin_of(node_from("mine.yaml"), tmp_path / "recipes")
    assert str(span) == "recipes/mine.yaml:3:1"
