"""The README claims only what a test runs: its commands, its links, its error message."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engine import cli
from tests.rules import screencast
from tests.rules.golden import ROOT

README = (ROOT / "README.md").read_text("utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.S))


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.M))
    named = set(re.findall(r"`?make ([\w-]+)", README))

    assert {"quickstart", "test"} <= named <= targets


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)

    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_own_recipe_goes_from_init_to_plan(tmp_path: Path):
    commands = [shlex.split(line) for line in SHELL.splitlines() if line.startswith(".venv/bin/")]
    verbs = [command[1] for command in commands]

    assert verbs == ["init", "validate", "plan", "run", "report"]  # the miniature runs the last two
    for command in commands[:3]:
        done = _adapt(tmp_path, *command[1:])
        assert done.returncode == 0, done.stderr


def test_the_error_of_the_readme_is_what_is_printed(tmp_path: Path):
    _adapt(tmp_path, "init", "my_domain", "--from", "quickstart")
    recipe = tmp_path / "my_domain.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace("learning_rate: 1.0", "learning_rat: 1.0"))
    done = _adapt(tmp_path, "validate", "my_domain.yaml")

    assert done.returncode == 1
    assert (done.stdout + done.stderr).strip() in README


def test_the_session_of_the_readme_prints_what_it_shows(tmp_path: Path):
    """After a change on purpose: `make golden`, and read the diff of the README."""
    shown = screencast.recorded()

    assert screencast.played(shown, tmp_path) == shown


def test_every_verb_prints_what_was_reviewed(tmp_path: Path):
    """After a change on purpose: `make golden`, and read the diff of verbs.console."""
    shown = screencast.VERBS.read_text("utf-8")
    used = set(re.findall(r"^\$ adapt (\w+)", shown, flags=re.M))

    assert used == set(cli.VERBS)
    assert screencast.played(shown, tmp_path) == shown


@pytest.mark.parametrize("line", re.findall(r"^(source|benchmarks): \{", README, flags=re.M))
def test_sections_shown_in_the_readme_are_sections_of_a_recipe(line: str):
    assert line in (ROOT / "schemas" / "recipe.schema.json").read_text("utf-8")


def _adapt(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine.cli", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_readmes_example_of_a_generator_is_valid(tmp_path):
    (block,) = re.findall(r"```yaml\n(generator:.*?)```", README, re.S)
    recipe = tmp_path / "mine.yaml"
    head = "recipe: 1\nname: mine\nsource: {use: pocket, world: cells, num_rows: 9}\n"
    head += "base: {model: pocket/base}\nbenchmarks: {domain: [holdout]}\n"
    recipe.write_text(head + block)
    done = _adapt(tmp_path, "validate", "mine.yaml")

    assert (done.returncode, done.stdout[:17]) == (0, "mine.yaml: valid ")
