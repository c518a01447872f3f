from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema_rs
import pytest

from engine import cli, package_data

RECIPES = package_data.folder("recipes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository whose HEAD holds a recipe and its parent."""
    folder = tmp_path / "work"
    (folder / "base").mkdir(parents=True)
    text = (RECIPES / "quickstart.yaml").read_text("utf-8")
    (folder / "mine.yaml").write_text(text.replace("seed: 42", "extends: base/common.yaml"))
    (folder / "base" / "common.yaml").write_text("seed: 42\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    git("init", "--quiet")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return folder


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new))


def diff(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert cli.main(["diff", *words]) == code
    done = capsys.readouterr()
    return done.out + done.err


def found(capsys: pytest.CaptureFixture[str], *words: str):
    document = json.loads(diff(capsys, *words, "--json"))
    schema = json.loads((package_data.folder("schemas") / "diff.schema.json").read_text("utf-8"))
    jsonschema_rs.validate(schema, document)
    return document


def test_cosmetic_edits_are_silent(folder: Path, capsys):
    edit(folder / "mine.yaml", "learning_rate: 1.0e-3", "learning_rate: 0.0010  # as before")
    edit(folder / "mine.yaml", "extends: base/common.yaml", "seed: 42")

    assert diff(capsys, "mine.yaml", "--exit-code") == (
        "HEAD:mine.yaml -> mine.yaml\nno difference in meaning: nothing runs again\n"
    )


def test_a_change_is_told_with_its_place_and_effect(folder: Path, capsys):
    edit(folder / "mine.yaml", "learning_rate: 1.0e-3", "learning_rate: 5.0e-4")

    assert (
        diff(capsys, "mine.yaml")
        == """\
HEAD:mine.yaml -> mine.yaml
1 change in meaning: 5 of 17 nodes run again, training rows unchanged

  training.learning_rate: 0.001 -> 0.0005  (mine.yaml:40)
      runs again: train
      then 4 nodes downstream

runs again
  train: params.training.learning_rate: 0.001 -> 0.0005
  evaluate.answers/adapted/pocket_cells: because of train
  evaluate.scores/pocket_cells: because of train
  evaluate.answers/adapted/pocket_shapes: because of train
  evaluate.scores/pocket_shapes: because of train
"""
    )


def test_exit_code_one_only_when_asked(folder: Path, capsys):
    edit(folder / "mine.yaml", "learning_rate: 1.0e-3", "learning_rate: 5.0e-4")

    diff(capsys, "mine.yaml")
    diff(capsys, "mine.yaml", "--exit-code", code=1)


def test_a_change_in_a_parent_is_seen(folder: Path, capsys):
    edit(folder / "base" / "common.yaml", "42", "43")
    (change,) = found(capsys, "mine.yaml")["changes"]

    assert (change["path"], change["new_place"]) == ("seed", "base/common.yaml:1")


def test_a_neutral_change_is_called_so(folder: Path, capsys):
    edit(folder / "mine.yaml", "1.0e-3\n", "1.0e-3\n  save_steps: 77\n")
    document = found(capsys, "mine.yaml")

    assert document["changes"][0]["effect"]["neutral"]
    assert document["neutral"] == [{"id": "train", "changes": ["training.save_steps: 100 -> 77"]}]
    assert document["reruns"] == []
    assert "neutral: no result depends on it" in diff(capsys, "mine.yaml")


def test_the_new_arm_of_a_matrix_adds_nodes(folder: Path, capsys):
    with (folder / "mine.yaml").open("a") as file:
        file.write("matrix: {as_is: {}, captions_only: {mix.parts.synthetic: 0}}\n")
    (change,) = found(capsys, "mine.yaml")["changes"]

    assert change["path"] == "matrix"
    assert "train@captions_only" in change["effect"]["adds"]


def test_a_changed_benchmark_file_is_outside_the_recipe(folder: Path, capsys):
    (folder / "benchmarks").mkdir()
    shutil.copy(RECIPES / "benchmarks" / "pocket_cells.yaml", folder / "benchmarks")
    edit(folder / "benchmarks" / "pocket_cells.yaml", "max_new_tokens: ", "max_new_tokens: 1")
    document = found(capsys, "mine.yaml")

    assert document["changes"] == []
    assert {item["kind"] for item in document["outside"]} == {"benchmark or packaged file"}


def test_two_recipes_two_revisions_and_a_saved_plan_are_sides(folder: Path, capsys):
    cli.main(["plan", "mine.yaml", "-o", "p.json"])
    capsys.readouterr()
    for other in ("quickstart", "git:HEAD:mine.yaml", "p.json", "mine.yaml"):
        assert "runs again" not in diff(capsys, "mine.yaml", other).splitlines()[1].split(":")[0]
        document = found(capsys, "mine.yaml", other)
        assert document["reruns"] == []
        assert document["old"] == {"name": "mine.yaml", "kind": "recipe"}


def test_markdown_escapes_what_it_shows(folder: Path, capsys):
    edit(folder / "mine.yaml", "description: ", "description: a | b <b>*x*</b> `c` @team ")
    text = diff(capsys, "mine.yaml", "--format", "markdown")

    assert "<b>" not in text.replace("`", "")[: text.find("| change")]
    row = next(line for line in text.splitlines() if "description" in line)
    assert "\\|" in row
    assert "neutral: no result depends on it" in row


def test_html_is_one_page_that_escapes(folder: Path, capsys):
    edit(folder / "mine.yaml", "description: ", "description: <script>alert(1)</script> ")
    page = diff(capsys, "mine.yaml", "--format", "html")

    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("git:HEAD", "names no file"),
        ("git:nowhere:mine.yaml", "git says: Not a valid object name nowhere"),
        ("git:HEAD:other.yaml", "revision `HEAD` has no file `other.yaml`"),
        ("quickstrat", "there is no recipe, run or plan `quickstrat`"),
        ("missing.yaml", "cannot read `missing.yaml`"),
    ],
)
def test_a_side_that_is_not_there_is_told(folder: Path, capsys, name: str, said: str):
    assert said in diff(capsys, name, "mine.yaml", code=1)


def test_a_mistake_of_another_revision_is_shown_as_of_that_revision(folder: Path, capsys):
    edit(folder / "mine.yaml", "learning_rate", "learning_rat")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-am", "second")
    edit(folder / "mine.yaml", "learning_rat:", "learning_rate:")

    assert "--> HEAD:mine.yaml:40:3" in diff(capsys, "mine.yaml", code=1)


def test_one_side_outside_of_git_is_refused(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(RECIPES / "quickstart.yaml", tmp_path / "mine.yaml")

    assert "nothing-to-compare" in diff(capsys, "mine.yaml", code=1)


def test_two_locks_are_compared_fact_by_fact(folder: Path, capsys):
    cli.main(["lock", "mine.yaml", "--offline"])
    capsys.readouterr()
    text = (folder / "mine.lock.json").read_text("utf-8")
    (folder / "old.lock.json").write_text(text.replace('"python": "', '"python": "2.'))

    printed = diff(capsys, "old.lock.json", "mine.lock.json").splitlines()
    assert printed[1].startswith("1 locked fact differs, ")
    assert printed[3].startswith('  locked fact python: "2.')
    document = found(capsys, "old.lock.json", "mine.lock.json")
    assert [item["path"] for item in document["outside"]] == ["python"]
    diff(capsys, "old.lock.json", "mine.lock.json", "--exit-code", code=1)
    assert "no.lock.json" in diff(capsys, "no.lock.json", "mine.lock.json", code=1)
