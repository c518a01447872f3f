"""The bundle in the hands of yaml-language-server, which VS Code, Neovim and others use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editor.language_server import LanguageServer
from tests.editor.test_check_jsonschema import CASES, UNSEEN, WRONG

ROOT = Path(__file__).parent.parent.parent
SERVER = os.environ.get("ADAPT_YAML_LANGUAGE_SERVER", "")
HEADER = "# yaml-language-server: $schema=adapt.schema.json\n"
RECIPES = [
    path for path in sorted((ROOT / "recipes").glob("**/*.yaml")) if "benchmarks" not in path.parts
]
BEGUN = f"{HEADER}recipe: 1\nname: x\nbase: {{model: pocket/base}}\n"
# The server reads what check-jsonschema refuses, or stops before it compares.
UNSEEN_HERE = {case for cases in UNSEEN.values() for case in cases} | {"empty", "two_documents"}

pytestmark = pytest.mark.editor
if not SERVER:
    pytest.skip("needs yaml-language-server; run by `make test-editor`", allow_module_level=True)


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    folder = tmp_path_factory.mktemp("editor")
    shutil.copy(ROOT / "schemas" / "bundle.schema.json", folder / "adapt.schema.json")
    with LanguageServer([*SERVER.split(), "--stdio"], folder) as server:
        yield server


def messages(editor: LanguageServer, name: str, text: str) -> list[str]:
    return [found["message"] for found in editor.open(name, text)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_nothing_is_marked_in_a_shipped_recipe(editor: LanguageServer, path: Path):
    assert messages(editor, f"shipped_{path.name}", HEADER + path.read_text("utf-8")) == []


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_recipe_is_marked_unless_no_schema_can_see_it(editor: LanguageServer, case: str):
    text = (WRONG / f"{case}.yaml").read_text("utf-8", errors="replace")
    found = messages(editor, f"wrong_{case}.yaml", HEADER + text)

    assert (not found) == (case in UNSEEN_HERE)


def test_a_misspelt_setting_is_marked_where_it_stands(editor: LanguageServer):
    text = f"{BEGUN}filters:\n  pairs:\n    - {{use: image_size, min_side: 3}}\n"
    (found,) = editor.open("misspelt.yaml", text)

    assert found["message"] == "Property min_side is not allowed."
    assert found["range"]["start"] == {"line": 6, "character": 24}


def test_filters_are_offered_after_use(editor: LanguageServer):
    editor.open("use.yaml", f"{BEGUN}filters:\n  tasks:\n    - use: \n")

    assert "consistency" in editor.completions("use.yaml", 6, 11)


def test_settings_of_the_chosen_filter_are_offered_and_no_others(editor: LanguageServer):
    editor.open("set.yaml", f"{BEGUN}filters:\n  pairs:\n    - use: near_duplicate\n      \n")

    assert list(editor.completions("set.yaml", 7, 6)) == ["max_distance_bits"]


def test_sections_and_their_keys_are_offered(editor: LanguageServer):
    editor.open("top.yaml", f"{BEGUN}\n")
    editor.open("training.yaml", f"{BEGUN}training:\n  lea\n")

    assert {"source", "filters", "benchmarks"} <= set(editor.completions("top.yaml", 4, 0))
    assert "learning_rate" in editor.completions("training.yaml", 5, 5)


def test_keys_of_an_arm_are_offered_dotted(editor: LanguageServer):
    editor.open("arm.yaml", f"{BEGUN}matrix:\n  a:\n    mix\n")

    assert "mix.pipeline" in editor.completions("arm.yaml", 6, 7)


def test_names_of_benchmarks_and_parents_are_offered(editor: LanguageServer):
    editor.open("names.yaml", f"{BEGUN}extends: \nbenchmarks:\n  domain:\n    - \n")

    assert "base/qwen2_vl_2b.yaml" in editor.completions("names.yaml", 4, 9)
    assert {"holdout", "slake"} <= set(editor.completions("names.yaml", 7, 6))


def test_prose_is_shown_where_the_pointer_rests(editor: LanguageServer):
    editor.open("hover.yaml", f"{BEGUN}training:\n  learning_rate: 1e-4\n")

    assert "Peak learning rate" in editor.hover("hover.yaml", 5, 6)
