from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine import package_data
from engine.cli import main, planning
from engine.diagnostics import RequestError
from engine.runtime.store import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Path:
    """A folder with a recipe and its saved plan, `plans/p.json`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    (folder / "plans").mkdir(parents=True)
    shutil.copy(package_data.folder("recipes") / "quickstart.yaml", folder / "mine.yaml")
    monkeypatch.chdir(folder)
    assert main(["plan", "mine.yaml", "-o", "plans/p.json", "--set", "training.max_steps=9"]) == 0
    capsys.readouterr()
    return folder


def requested(*overrides: str):
    return planning.requested("plans/p.json", overrides, Store(Path("store")))


def mistake(*overrides: str):
    with pytest.raises(RequestError) as found:
        requested(*overrides)
    return found.value.diagnostics[0]


def test_a_saved_plan_is_the_plan_with_its_overrides(folder: Path):
    planned = requested()

    expected = planning.load_plan("mine.yaml", ["training.max_steps=9"], Store(Path("store")))
    assert planned.plan == expected.plan
    assert planned.overrides == ("training.max_steps=9",)


def test_a_saved_plan_holds_no_absolute_path_and_can_be_moved_with_its_recipe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert str(tmp_path) not in (folder / "plans" / "p.json").read_text()

    shutil.copytree(folder, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert requested().plan.recipe == "quickstart"


def test_a_comment_does_not_make_a_plan_stale(folder: Path):
    path = folder / "mine.yaml"
    path.write_text("# another line\n" + path.read_text())

    assert requested().plan.recipe == "quickstart"


def test_a_stale_plan_names_the_field_that_moved(folder: Path):
    path = folder / "mine.yaml"
    path.write_text(path.read_text().replace("learning_rate: 1.0e-3", "learning_rate: 2.0e-3"))
    found = mistake()

    assert found.code == "stale-plan"
    assert found.message == (
        "the plan `plans/p.json` is stale: mine.yaml now asks for something else"
    )
    assert [str(note) for note in found.notes] == [
        "moved: train: params.training.learning_rate: 0.001 -> 0.002"
    ]


def test_a_neutral_field_that_moved_is_named_as_well(folder: Path):
    path = folder / "mine.yaml"
    path.write_text(path.read_text().replace("1.0e-3\n", "1.0e-3\n  save_steps: 77\n"))

    assert "params.training.save_steps: 100 -> 77" in str(mistake().notes)


def test_nodes_that_come_and_go_are_named(folder: Path):
    path = folder / "mine.yaml"
    path.write_text(path.read_text().replace("general: [pocket_shapes]", "general: []"))

    assert "collect/pocket_shapes: no longer planned" in str(mistake().notes)


def test_a_saved_plan_takes_no_override(folder: Path):
    assert mistake("seed=3").code == "plan-is-fixed"


def test_a_plan_changed_by_hand_is_refused(folder: Path):
    path = folder / "plans" / "p.json"
    path.write_text(path.read_text().replace('"max_steps": 9', '"max_steps": 8'))
    found = mistake()

    assert found.code == "no-plan"
    assert "is not the digest of its pre-image" in found.message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan": 99, "made_from": {}}', "\x00"])
def test_what_is_no_plan_is_refused(folder: Path, text: str):
    (folder / "plans" / "p.json").write_text(text)

    assert mistake().code == "no-plan"


def test_a_plan_whose_recipe_has_gone_says_so(folder: Path):
    (folder / "mine.yaml").unlink()

    assert mistake().code == "file-not-found"


def test_run_refuses_a_stale_plan_and_writes_nothing(folder: Path, capsys):
    path = folder / "mine.yaml"
    path.write_text(path.read_text().replace("seed: 42", "seed: 43"))

    assert main(["run", "plans/p.json", "--store", "store"]) == 1
    assert "seed: 42 -> 43" in capsys.readouterr().err
    assert not (folder / "store").exists()


def test_a_saved_plan_satisfies_the_schema(folder: Path):
    import jsonschema

    schema = json.loads((package_data.folder("schemas") / "plan.schema.json").read_text())
    jsonschema.validate(json.loads((folder / "plans" / "p.json").read_text()), schema)
