"""`recipes/README.md` is a tutorial, and every command in it runs, in its order, in one folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import cli
from tests.rules import screencast
from tests.rules.golden import ROOT
from tests.sources.building import picture

TUTORIAL = (ROOT / "recipes" / "README.md").read_text("utf-8")
PARTS = re.split(r"^### ", TUTORIAL.split("## The sections")[0], flags=re.M)[1:]
SECTIONS = [
    (part.splitlines()[0], "\n".join(re.findall(r"```sh\n(.*?)```", part, flags=re.S)))
    for part in PARTS
]
NEEDS_A_RUN = re.compile(r"^adapt (run|report|status)|^adapt show ", re.M)
MOST_PICTURES = 48
KINDS = {
    "animals": ("bear", "cat", "dog", "fox"),
    "plants": ("oak", "palm", "rose", "fern"),
    "vehicles": ("car", "boat", "bus", "tram"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lay out the stamps as their package does, and `adapt` installed."""
    screencast.prepare(tmp_path)
    stamps = tmp_path / "work" / "data" / "stamps"
    fetched = sorted((ROOT / "data" / "stamps").rglob("*.png"))
    for path in [p for p in fetched if p.with_suffix(".txt").is_file()][:MOST_PICTURES]:
        copy = stamps / path.relative_to(ROOT / "data" / "stamps")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        shutil.copy(path.with_suffix(".txt"), copy.with_suffix(".txt"))
    if not fetched:
        _stand_in(stamps)
    return tmp_path


def _stand_in(stamps: Path) -> None:
    names = [(kind, name, n) for kind, ns in KINDS.items() for name in ns for n in range(4)]
    for number, (kind, name, view) in enumerate(names):
        path = stamps / kind / f"{name}_{view}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, side_px=96))
        text = f"A picture of a {name}, seen from side {view}.\nde.utf8=Ein Bild.\n"
        path.with_suffix(".txt").write_text(text, encoding="utf-8")


def play(folder: Path, *, with_runs: bool) -> dict[str, str]:
    """Run the commands of each section; return what they print."""
    printed = {}
    for title, commands in SECTIONS:
        verbs = set(re.findall(r"^adapt (\w+)", commands, flags=re.M))
        if not verbs <= set(cli.VERBS) or (NEEDS_A_RUN.search(commands) and not with_runs):
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder / "work",
            env=screencast.environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, f"{title}:\n{done.stdout}"
        printed[title] = done.stdout
    return printed


def test_every_section_has_commands() -> None:
    assert len(SECTIONS) > 12
    assert [title for title, commands in SECTIONS if not commands] == []


def test_every_command_that_needs_no_run(folder: Path) -> None:
    printed = play(folder, with_runs=False)

    table = printed["My captions are in a table with columns of its own"]
    assert "columns: {image: picture, caption: words}" in table
    assert "valid (benchmarks holdout, kinds)" in printed["I have questions of my own"]
    assert "DECIDE" in printed["I want to know what only I can decide"]
    assert {"no_filter", "captions_only"} <= set(
        re.findall(r"\w+", printed["I want to compare variants"])
    )


@pytest.mark.slow
def test_every_command(folder: Path) -> None:
    printed = play(folder, with_runs=True)

    assert "kinds" in printed["I want to see what came out"]
    assert "0 to run" in printed["I want others to get the same result"]


def test_yaml_shown_in_the_tutorial_is_a_part_of_a_recipe(folder: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TUTORIAL, flags=re.S)
    head = "extends: quickstart.yaml\nrecipe: 1\nname: shown\n"

    for block in blocks:
        (folder / "work" / "shown.yaml").write_text(head + block, encoding="utf-8")
        done = subprocess.run(
            ["adapt", "validate", "shown.yaml"],
            cwd=folder / "work",
            env=screencast.environment(folder),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert blocks


def test_every_recipe_is_in_the_table() -> None:
    patterns = re.findall(r"`([\w*/]+)\.yaml`", TUTORIAL.split("## Copy biomed")[0])
    folder = ROOT / "recipes"
    listed = {path for pattern in patterns for path in folder.glob(f"{pattern}.yaml")}

    assert set(folder.rglob("*.yaml")) == listed
