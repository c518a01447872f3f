"""A short form of `make chaos`, and whether it would notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from engine.runtime.store import Store
from tests.chaos import damage, miniature
from tests.chaos.miniature import ROOT, Reference
from tests.chaos.rounds import Round
from tests.runtime.fake_run import execute
from tests.runtime.fake_stages import PlanBuilder


def test_a_few_rounds_of_every_kind_of_trouble_end_as_if_nothing_had_been(tmp_path: Path):
    arguments = ["--recipe", "tests/chaos/smallest.yaml", "--in-turn", "--max-to-do", "3"]
    arguments += ["--rounds", "8", "--seed", "4", "--keep", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.chaos", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rounds in" in done.stdout


@pytest.fixture
def round_(tmp_path: Path) -> Round:
    """A round over a finished run of fake stages, in which nothing is missing."""
    build = PlanBuilder()
    build.add("count")
    build.add("double", "count")
    reference = Reference(tmp_path / "fake.yaml", tmp_path / "reference", 1.0)
    execute(build.plan(), reference.store.root)
    (reference.folder / "cache").mkdir()
    folder = tmp_path / "round"
    miniature.copy_in_some_state(reference, folder, Random(1), max_to_do=1)
    execute(build.plan(), folder / "store")
    found = Round(reference, folder, "mark", Random(1))
    found.look_back()
    return found


def test_a_round_that_ended_as_it_should_has_no_problem(round_: Round):
    round_.compare()

    assert round_.problems == []


@pytest.mark.parametrize(("place", "how"), [("artifact", "flip"), ("artifact", "blank")])
def test_a_round_notices_bytes_that_differ_under_a_good_manifest(
    round_: Round, place: str, how: str
):
    path = damage.files(round_.folder, place)[0]
    damage.do(path, how, Random(1))
    round_.compare()

    assert len(round_.problems) == 1
    assert f"has another `{path.name}`" in round_.problems[0]


def test_a_round_notices_a_node_that_is_missing(round_: Round):
    damage.do(damage.files(round_.folder, "artifact")[0], "cut", Random(1))
    round_.compare()

    assert "is missing" in round_.problems[0]


def test_a_round_notices_a_node_that_was_done_twice(round_: Round):
    plan = round_.reference.plan
    path = Store(round_.folder / "store").get(plan.nodes[0].key).file("manifest.json")
    path.touch()
    round_.compare()

    assert round_.problems == ["`count` was done twice"]
    round_.problems.clear()
    round_.excuse(plan.nodes[0].key)
    round_.compare()
    assert round_.problems == []


@pytest.mark.parametrize("how", damage.HOW)
def test_damage_changes_the_bytes_and_leaves_the_time(tmp_path: Path, how: str):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2000)
    path.chmod(0o444)
    before = path.stat()
    damage.do(path, how, Random(1))
    after = path.stat()

    assert path.read_bytes() != b"x" * 2000
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
