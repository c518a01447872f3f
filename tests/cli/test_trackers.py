from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from engine.cli import trackers, tracking
from engine.plan.stage import Plan
from engine.runtime import runs
from engine.runtime.runs import Run
from engine.runtime.store import Store
from tests.cli.fake_adapt import run_fake
from tests.rendering.finished import finished
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.test_local import wait_until

RECORDS = """
import json, os
class Run:
    def log(self, values, step):
        with open(os.environ["TRACKED"], "a") as file:
            file.write(json.dumps([values, step]) + "\\n")
    def finish(self):
        self.log({"finished": 1}, 0)
def init(**given):
    with open(os.environ["TRACKED"], "a") as file:
        file.write(json.dumps(given) + "\\n")
    return Run()
"""
HANGS = """
import os, time
open(os.environ["TRACKED"], "w").write(str(os.getpid()))
time.sleep(600)
"""
FAILS = "raise ConnectionError('no route to the tracker')"


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the stand-in of the package `trackio` writes to."""
    (tmp_path / "packages").mkdir()
    path = os.pathsep.join((str(tmp_path / "packages"), os.environ.get("PYTHONPATH", "")))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setenv("TRACKED", str(tmp_path / "tracked"))
    (tmp_path / "fake.yaml").write_text("recipe: 1\nname: fake\n")
    return tmp_path / "tracked"


def stand_in(tracked: Path, code: str) -> None:
    (tracked.parent / "packages" / "trackio.py").write_text(code)
    importlib.invalidate_caches()


def two() -> Plan:
    build = PlanBuilder()
    build.add("count")
    build.add("learn", "count")
    return build.plan()


def adapt_run(tracked: Path, *flags: str) -> tuple[int, Run]:
    store = tracked.parent / "store"
    code = run_fake(two(), tracked.parent / "fake.yaml", store, *flags)
    found = runs.newest(Store(store))
    assert found is not None
    return code, found


def test_a_tracker_is_told_of_nodes_and_losses(tracked: Path):
    stand_in(tracked, RECORDS)
    code, run = adapt_run(tracked, "--tracker", "trackio")
    wait_until(lambda: "finished" in tracked.read_text())

    first, *told = [json.loads(line) for line in tracked.read_text().splitlines()]
    values = {name: value for logged, _ in told for name, value in logged.items()}
    assert code == 0
    assert (first["name"], first["group"]) == (run.id, "fake")
    assert first["config"]["num_nodes"] == 2
    assert values["nodes/learn/wall_s"] > 0
    assert values["progress/nodes"] == 2
    assert [item for item in told if "learn/loss" in item[0]] == [
        [{"learn/loss": 1 / step}, step] for step in (1, 2, 3)
    ]


def test_a_tracker_is_told_no_secret_and_no_path(tracked: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key")
    stand_in(tracked, RECORDS)
    _, run = adapt_run(tracked, "--tracker", "trackio")
    wait_until(lambda: "finished" in tracked.read_text())

    told = tracked.read_text()
    kept = run.events_path.read_text() + json.dumps(run.facts())
    assert "a-secret-key" not in told + kept
    assert str(tracked.parent) not in told


@pytest.mark.alone
def test_a_tracker_that_hangs_does_not_hold_up_a_run(
    tracked: Path, capsys: pytest.CaptureFixture[str]
):
    stand_in(tracked, HANGS)
    began = time.monotonic()
    code, run = adapt_run(tracked, "--tracker", "trackio")
    took = time.monotonic() - began
    os.kill(int(tracked.read_text()), signal.SIGKILL)

    assert (code, run.status().state) == (0, "finished")
    assert took < 30
    assert "warning" not in capsys.readouterr().err


def test_a_tracker_that_fails_is_told_once_and_fails_nothing(
    tracked: Path, capsys: pytest.CaptureFixture[str]
):
    stand_in(tracked, FAILS)
    code, run = adapt_run(tracked, "--tracker", "trackio")

    err = capsys.readouterr().err
    assert (code, run.status().state) == (0, "finished")
    assert err.count("warning[tracker-failed]") == 1
    assert "no route to the tracker; the run is whole" in err


@pytest.mark.skipif(
    all(importlib.util.find_spec(name) for name in trackers.NAMES), reason="all are installed"
)
def test_a_tracker_that_is_not_installed_is_left_out(
    tracked: Path, capsys: pytest.CaptureFixture[str]
):
    name = trackers.missing(trackers.NAMES)[0]
    code, _ = adapt_run(tracked, "--tracker", name)

    err = capsys.readouterr().err
    assert code == 0
    assert f"warning[tracker-missing]: tracker `{name}` is left out" in err
    assert f"help: pip install {trackers.PACKAGES[name]}" in err


def test_tensorboard_gets_scalars(tracked: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    code, run = adapt_run(tracked, "--tracker", "tensorboard")
    log = run.path / "trackers" / "tensorboard.log"

    def found() -> Any:
        events = EventAccumulator(str(run.path / "trackers" / "tensorboard"))
        return events.Reload()

    wait_until(lambda: "learn/loss" in found().Tags()["scalars"])
    losses = [(item.step, round(item.value, 4)) for item in found().Scalars("learn/loss")]
    assert code == 0, log.read_text()
    assert losses == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    (about,) = found().Tensors("run")
    assert b'"engine"' in about.tensor_proto.string_val[0]


def test_scores_are_told_at_the_end(tmp_path: Path):
    store = Store(tmp_path / "store")
    run = finished(store, tmp_path / "arm")
    reader = tracking.Reader(tracking.overview.of_plan(run.plan(), store), store)

    points = {point.group: point.values for point in reader.last()}
    assert points["scores/cells"]["difference"] == pytest.approx(21.0)


def test_a_run_that_never_begins_is_not_waited_for_for_ever(tmp_path: Path):
    run = runs.create(Store(tmp_path), two(), {})

    assert tracking._state(run.status(), time.time()) == "running"
    assert tracking._state(run.status(), time.time() - 100) == "killed"
