from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from engine.cli import compiled, planning
from engine.diagnostics import RequestError
from engine.runtime.digests import DigestCache

RECIPE = """\
recipe: 1
name: mine
extends: parent.yaml
source: {use: image_folder, path: ./pictures}
benchmarks: {domain: [holdout]}
"""
PARENT = "base: {model: pocket/base}\ntraining: {max_steps: 5}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with a parent and pictures, all of them older than a compilation."""
    from PIL import Image

    folder = tmp_path / "work"
    (folder / "pictures").mkdir(parents=True)
    (folder / "mine.yaml").write_text(RECIPE)
    (folder / "parent.yaml").write_text(PARENT)
    Image.new("RGB", (8, 8)).save(folder / "pictures" / "a.png")
    (folder / "pictures" / "a.txt").write_text("a picture")
    for path in folder.rglob("*"):
        _age(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder


def _age(path: Path) -> None:
    before = time.time() - 60
    os.utime(path, (before, before))


class Plans:
    """Plans the recipe as the verbs do, and counts how often it was really compiled."""

    def __init__(self) -> None:
        self.num_compiled = 0

    def __call__(self, *overrides: str):
        digests = DigestCache(Path("store") / "digests")

        def compile_it():
            self.num_compiled += 1
            return planning.compile_recipe(Path("mine.yaml"), overrides, digests)

        plans = compiled.CompiledPlans(compiled.default_folder(os.environ))
        return plans.plan(
            Path("mine.yaml"), overrides, compile_it, lambda: digests.used, digests.path
        )


@pytest.fixture
def plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Plans:
    # The clock of a file that was just written cannot be trusted; the test cannot wait for it.
    monkeypatch.setattr(compiled, "RACY_S", -60.0)
    return Plans()


def test_a_plan_is_compiled_once(folder: Path, plan: Plans):
    first = plan()

    assert plan() == first
    assert plan.num_compiled == 1


def test_nothing_is_written_beside_the_recipe(folder: Path, plan: Plans):
    plan()

    assert sorted(path.name for path in folder.iterdir()) == [
        "mine.yaml",
        "parent.yaml",
        "pictures",
    ]


@pytest.mark.parametrize("name", ["mine.yaml", "parent.yaml", "pictures/a.txt"])
def test_a_changed_file_is_compiled_anew(folder: Path, plan: Plans, name: str):
    before = plan()
    path = folder / name
    path.write_text(path.read_text().replace("5", "6").replace("a picture", "another"))
    if name == "mine.yaml":
        path.write_text(path.read_text().replace("mine", "yours"))

    assert plan() != before
    assert plan.num_compiled == 2


def test_a_file_of_equal_size_and_time_is_still_told_apart(folder: Path, plan: Plans):
    before = plan()
    found = (folder / "parent.yaml").stat()
    (folder / "parent.yaml").write_text(PARENT.replace("5", "6"))
    os.utime(folder / "parent.yaml", ns=(found.st_atime_ns, found.st_mtime_ns))

    assert plan() != before


def test_a_new_picture_is_seen(folder: Path, plan: Plans):
    before = plan()
    shutil.copy(folder / "pictures" / "a.png", folder / "pictures" / "b.png")

    assert plan() != before


def test_a_benchmark_that_now_stands_beside_the_recipe_is_seen(folder: Path, plan: Plans):
    override = "benchmarks.domain=[pocket_cells]"
    before = plan(override)
    shutil.copytree(compiled.package_data.folder("recipes") / "benchmarks", folder / "benchmarks")
    path = folder / "benchmarks" / "pocket_cells.yaml"
    path.write_text(path.read_text().replace("max_new_tokens: ", "max_new_tokens: 1"))

    assert plan(override) != before


def test_overrides_have_entries_of_their_own(folder: Path, plan: Plans):
    assert plan("training.max_steps=7") != plan()
    assert plan.num_compiled == 2


def test_a_mistake_is_never_kept(folder: Path, plan: Plans):
    (folder / "mine.yaml").write_text(RECIPE.replace("extends", "extend"))
    for _ in range(2):
        with pytest.raises(RequestError):
            plan()

    assert plan.num_compiled == 2


def test_a_broken_entry_is_compiled_anew(folder: Path, plan: Plans):
    first = plan()
    for entry in compiled.default_folder(os.environ).glob("*.json"):
        entry.write_text(entry.read_text()[:-20])

    assert plan() == first
    assert plan.num_compiled == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    folder: Path, plan: Plans, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert plan() == plan()
    assert plan.num_compiled == 2


def test_old_entries_go(folder: Path, plan: Plans, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled, "MAX_ENTRIES", 2)
    for number in range(4):
        plan(f"seed={number}")

    assert len(list(compiled.default_folder(os.environ).glob("*.json"))) == 2
