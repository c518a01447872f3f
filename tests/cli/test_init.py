"""The verb `init` as a copy of a recipe; `test_init_data.py` is about `--data`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import package_data
from engine.cli import main
from engine.recipe.bundle import bundle


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_a_recipe_under_its_own_name(folder: Path):
    assert main(["init", "my_domain"]) == 0

    first, _, text = (folder / "my_domain.yaml").read_text("utf-8").partition("\n")
    original = (package_data.folder("recipes") / "quickstart.yaml").read_text("utf-8")
    assert text == original.replace("name: quickstart\n", "name: my_domain\n")
    assert first == "# yaml-language-server: $schema=adapt.schema.json"


def test_what_init_writes_is_valid(folder: Path):
    for template in ("quickstart", "biomed", "pocket_ablation"):
        assert main(["init", f"from_{template}", "--from", template]) == 0
        assert main(["validate", f"from_{template}.yaml"]) == 0


def test_init_refuses_to_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "mine.yaml").write_text("precious")

    assert main(["init", "mine"]) == 1
    assert (folder / "mine.yaml").read_text() == "precious"
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["init", "x", "--from", "quikstart"], "did you mean `quickstart`?"),
        (["init", "My Domain"], "adapt init my_domain"),
        (["init", "no_folder/x"], "cannot write"),
    ],
)
def test_init_says_what_to_do_instead(
    arguments: list[str], hint: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 1
    assert hint in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_init_quotes_a_name_that_looks_like_a_number(folder: Path):
    assert main(["init", "2024"]) == 0
    assert 'name: "2024"\n' in (folder / "2024.yaml").read_text("utf-8")


def test_the_schema_named_in_the_first_line_is_written_beside_the_recipe(folder: Path):
    assert main(["init", "mine"]) == 0

    assert json.loads((folder / "adapt.schema.json").read_text("utf-8")) == bundle()


def test_an_older_schema_of_ours_is_renewed(folder: Path):
    (folder / "adapt.schema.json").write_text('{\n  "$id": "urn:adapt:schema:bundle"}')

    assert main(["init", "mine"]) == 0
    assert json.loads((folder / "adapt.schema.json").read_text("utf-8")) == bundle()


def test_a_file_that_is_not_our_schema_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "adapt.schema.json").write_text("{}")

    assert main(["init", "mine"]) == 1
    assert "`adapt.schema.json` is already there" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["adapt.schema.json"]


def test_recipes_of_one_repository_share_a_schema(folder: Path):
    (folder / ".git").mkdir()
    (folder / "more").mkdir()

    assert main(["init", "mine"]) == 0
    assert main(["init", "more/other"]) == 0
    first = (folder / "more" / "other.yaml").read_text("utf-8").partition("\n")[0]
    assert first == "# yaml-language-server: $schema=../adapt.schema.json"
    assert [path.name for path in (folder / "more").iterdir()] == ["other.yaml"]


def test_init_copies_any_recipe_and_its_paths_still_lead_there(folder: Path):
    (folder / "here").mkdir()
    (folder / "there" / "pictures").mkdir(parents=True)
    (folder / "there" / "parent.yaml").write_text("base: {model: pocket/base}\n")
    (folder / "there" / "old.yaml").write_text(
        "recipe: 1\nname: old\nextends: parent.yaml\n"
        "source: {use: image_folder, path: pictures}  # ours\n"
    )

    assert main(["init", "here/new", "--from", "there/old.yaml"]) == 0
    assert (folder / "here" / "new.yaml").read_text("utf-8") == (
        "# yaml-language-server: $schema=adapt.schema.json\n"
        "recipe: 1\nname: new\nextends: ../there/parent.yaml\n"
        "source: {use: image_folder, path: ../there/pictures}  # ours\n"
    )
    assert main(["validate", "here/new.yaml"]) == 0


def test_a_copy_of_a_copy_names_one_schema(folder: Path):
    assert main(["init", "first"]) == 0
    assert main(["init", "second", "--from", "first.yaml"]) == 0

    text = (folder / "second.yaml").read_text("utf-8")
    assert text.count("yaml-language-server") == 1
