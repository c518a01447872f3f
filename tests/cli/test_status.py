from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import jsonschema_rs
import pytest

from engine import cli
from engine.cli import tables
from engine.cli.overview import Overview
from engine.runtime import runs
from engine.runtime.runs import Run
from engine.runtime.store import Store
from tests.cli import test_overview as overviews
from tests.cli.fake_adapt import command, run_fake
from tests.runtime import test_events as known
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.test_local import wait_until


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    recipe = tmp_path / "fake.yaml"
    recipe.write_text("recipe: 1\n")
    build = PlanBuilder()
    build.add("count")
    build.add("fail", "count")
    build.add("double", "fail")
    run_fake(build.plan(), recipe, tmp_path / "store")
    capsys.readouterr()
    (found,) = runs.all_runs(Store(tmp_path / "store"))
    return found


def status(run: Run, *words: str) -> int:
    return cli.main(["status", *words, "--store", str(run.path.parents[1])])


def test_the_newest_run_is_shown_by_default(run: Run, capsys: pytest.CaptureFixture[str]):
    assert status(run) == 0
    head, count, fail, double, _ = capsys.readouterr().out.splitlines()
    assert head == f"run {run.id}: failed"
    assert count.split()[:2] == ["count", "ran"]
    assert fail.split(maxsplit=2) == ["fail", "failed", "there are no rows to read"]
    assert double.split(maxsplit=2) == ["double", "skipped", "`fail` failed"]


def test_a_run_is_found_by_its_beginning_or_by_its_recipe(
    run: Run, capsys: pytest.CaptureFixture[str]
):
    recipe = run.facts()["recipe_path"]

    assert status(run, run.id[:-2], "--json") == 0
    assert json.loads(capsys.readouterr().out)["run"] == run.id
    assert status(run, recipe, "--json") == 0
    assert json.loads(capsys.readouterr().out)["run"] == run.id


def test_an_unknown_run_is_told_with_the_nearest(run: Run, capsys: pytest.CaptureFixture[str]):
    assert status(run, run.id + "x") == 1
    assert f"`{run.id}` is there" in capsys.readouterr().err


def test_the_log_of_a_node_is_printed(run: Run, capsys: pytest.CaptureFixture[str]):
    assert status(run, "--logs", "fail") == 0
    assert capsys.readouterr().out == "about to fail\n"


def test_the_log_of_a_cached_node_is_that_of_the_run_that_made_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "fake.yaml"
    recipe.write_text("recipe: 1\n")
    for note in ("", "other", ""):
        build = PlanBuilder()
        build.add("count", note=note)
        run_fake(build.plan(), recipe, tmp_path / "store")
    first, other, last = runs.all_runs(Store(tmp_path / "store"))
    assert other.log_path("count").exists(), "made under another key"
    first.log_path("count").write_text("counted\n")
    capsys.readouterr()

    assert status(last, "--logs", "count") == 0
    told = capsys.readouterr()
    assert told.out == "counted\n"
    assert told.err == f"`count` did not run in {last.id}; {first.id} made it:\n"


def test_following_a_run_that_ended_shows_it_and_returns(
    run: Run, capsys: pytest.CaptureFixture[str]
):
    assert status(run, "--follow") == 0
    out = capsys.readouterr().out
    assert "fail: FAILED: there are no rows to read" in out
    assert out.endswith(f"run {run.id}: failed\n")


def test_following_with_json_prints_the_lines_of_the_log_and_then_the_status(
    run: Run, capsys: pytest.CaptureFixture[str]
):
    assert status(run, "--follow", "--json") == 0
    *lines, last = capsys.readouterr().out.splitlines()

    assert lines == run.events_path.read_text().splitlines()
    assert json.loads(last)["state"] == "failed"
    jsonschema_rs.validate(known.schema(), json.loads(last))


def test_a_store_that_cannot_be_written_is_read(run: Run, capsys: pytest.CaptureFixture[str]):
    folders = [path for path in (run.path, *run.path.parents[:2]) if path.is_dir()]
    before = {path: sorted(path.rglob("*")) for path in folders}
    for path in folders:
        path.chmod(0o555)
    try:
        for words in ((), ("--json",), ("--follow",), ("--logs", "fail", "--follow")):
            assert status(run, *words) == 0
    finally:
        for path in folders:
            path.chmod(0o755)

    assert {path: sorted(path.rglob("*")) for path in folders} == before


def test_a_damaged_log_still_tells_where_a_run_stands(run: Run, capsys: pytest.CaptureFixture[str]):
    lines = run.events_path.read_bytes().splitlines(keepends=True)
    lines[1:1] = [b'{"type": "node_teleported", "time": 1.0}\n', b'\xff\x00{"type"\n']
    run.events_path.write_bytes(b"".join(lines) + b'{"type": "run_fin')

    assert status(run) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"run {run.id}: failed\n")
    assert "2 lines of its log could not be read" in out


def test_the_log_of_a_node_that_runs_is_followed_to_its_end(tmp_path: Path):
    build = PlanBuilder()
    build.add("slow", num_batches=8, batch_s=0.2)
    (tmp_path / "fake.yaml").write_text("recipe: 1\n")
    engine = subprocess.Popen(command(build.plan(), tmp_path), stdout=subprocess.DEVNULL)
    wait_until(lambda: bool(list(tmp_path.glob("store/runs/*/logs/slow.log"))))
    (found,) = runs.all_runs(Store(tmp_path / "store"))
    halves = "à la fin\n".encode()
    words = ["status", "--logs", "slow", "--follow", "--store", str(tmp_path / "store")]
    follower = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", *words], stdout=subprocess.PIPE, text=True
    )
    for part in (halves[:1], halves[1:]):
        with found.log_path("slow").open("ab") as log:
            log.write(part)
        time.sleep(0.7)
    out, _ = follower.communicate(timeout=20)

    assert engine.wait(20) == follower.returncode == 0
    assert out == "à la fin\n"


def test_a_run_that_goes_on_is_followed_without_a_word_to_it(tmp_path: Path):
    build = PlanBuilder()
    build.add("slow", num_batches=6, batch_s=0.2)
    build.add("double", "slow")
    (tmp_path / "fake.yaml").write_text("recipe: 1\n")
    engine = subprocess.Popen(command(build.plan(), tmp_path), stdout=subprocess.DEVNULL)
    wait_until(lambda: bool(list(tmp_path.glob("store/runs/*/events.jsonl"))))
    words = ["status", "--follow", "--json", "--store", str(tmp_path / "store")]
    follower = subprocess.run(
        [sys.executable, "-m", "engine.cli", *words], capture_output=True, text=True, timeout=30
    )

    assert engine.wait(20) == 0
    (found,) = runs.all_runs(Store(tmp_path / "store"))
    *lines, last = follower.stdout.splitlines()
    assert lines == found.events_path.read_text().splitlines()
    assert json.loads(last)["state"] == "finished"


def test_a_damaged_plan_leaves_what_the_log_tells(run: Run, capsys: pytest.CaptureFixture[str]):
    path = run.path / "plan.json"
    path.write_text(path.read_text().replace('"key"', '"kez"', 1))

    assert status(run) == 0
    out = capsys.readouterr().out
    assert "fail    failed   there are no rows to read" in out
    assert "its plan.json is damaged or gone" in out
    assert status(run, "--logs", "fail") == 0
    assert capsys.readouterr().out == "about to fail\n"


def test_a_large_run_is_told_by_stage_and_arm():
    arms = tuple(f"arm_{number:03}" for number in range(100))
    found = overviews.plan(*arms)
    happened = [overviews.started(found), overviews.began("curate")]
    happened += [overviews.ended("curate", 9.0, 9.0, pairs=17), overviews.began("filter@arm_003")]
    seen = overviews.seen(Overview(found), happened)
    lines = tables.status_text(seen, seen.status(), 30.0).splitlines()

    assert lines[:3] == [
        "run r: running, more than 15 min 00 s left",
        "  stages  done",
        "  count   1 of 101  1 ran, 1 running, 99 waiting",
    ]
    assert any(line.startswith("  filter@arm_003  running") for line in lines)
    assert lines[-1] == "  and 40 more"
    assert len(lines) < 80
