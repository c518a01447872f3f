from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import cli
from engine.cli.overrides import from_file
from engine.diagnostics import RequestError
from engine.recipe.load import load_experiment
from tests.rules.golden import ROOT

RECIPE = ROOT / "recipes" / "quickstart.yaml"


def loaded(*overrides: str):
    return load_experiment(RECIPE, overrides).recipe


@pytest.mark.parametrize(
    "text",
    ["plain", "two\nlines\n", 'say "hi"', "no", "1e-4", "tab\there", "\u2028", "ü"],
)
def test_a_text_file_is_a_text_whatever_it_looks_like(tmp_path: Path, text: str):
    (tmp_path / "note.txt").write_text(text, encoding="utf-8")

    assert loaded(from_file(f"description={tmp_path / 'note.txt'}")).description == text


def test_yaml_and_json_files_are_values(tmp_path: Path):
    (tmp_path / "t.yaml").write_text("learning_rate: 1e-4\nmax_length: 512 # tokens\n")
    (tmp_path / "n.json").write_text("7")
    recipe = loaded(
        from_file(f"training={tmp_path / 't.yaml'}"), from_file(f"seed={tmp_path / 'n.json'}")
    )

    assert (recipe.training.learning_rate, recipe.training.max_length, recipe.seed) == (
        1e-4,
        512,
        7,
    )


def test_a_run_needs_the_file_no_longer(tmp_path: Path):
    path = tmp_path / "n.json"
    path.write_text("7")
    override = from_file(f"seed={path}")
    path.unlink()

    assert override == "seed=7"


@pytest.mark.parametrize(
    ("word", "code"),
    [("seed", "override"), ("seed=", "override"), ("seed=nothing.txt", "file-not-found")],
)
def test_a_wrong_file_is_told(word: str, code: str):
    with pytest.raises(RequestError) as found:
        from_file(word)
    assert found.value.diagnostics[0].code == code


def test_flags_are_applied_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "n.json").write_text("7")
    words = ["--set", "seed=5", "--set-file", f"seed={tmp_path / 'n.json'}", "--json"]

    assert cli.main(["show", str(RECIPE), *words]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


def test_several_recipes_are_checked_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "wrong.yaml").write_text("recipe: 1\n")
    (tmp_path / "too.yaml").write_text("recipe: 2\n")
    wrong = [str(tmp_path / "wrong.yaml"), str(tmp_path / "too.yaml")]

    assert cli.main(["validate", wrong[0], str(RECIPE), wrong[1]]) == 1
    done = capsys.readouterr()
    assert done.out.startswith(f"{RECIPE}: valid")
    assert [name for name in wrong if name not in done.err] == []


def test_the_json_of_several_recipes_follows_its_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import jsonschema_rs

    (tmp_path / "wrong.yaml").write_text("recipe: 1\n")
    cli.main(["validate", str(RECIPE), str(tmp_path / "wrong.yaml"), "--json"])
    schema = json.loads((ROOT / "schemas" / "diagnostics.schema.json").read_text("utf-8"))
    document = json.loads(capsys.readouterr().out)

    jsonschema_rs.validate(schema, document)
    assert [item["recipe"] for item in document["valid"]] == ["quickstart"]
    assert document["diagnostics"]
