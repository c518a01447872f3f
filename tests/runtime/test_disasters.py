"""What happens to machines and people, done for real: kills, clocks, crowds, deleted folders."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from engine.plan.stage import Plan
from engine.runtime import runs
from engine.runtime.store import Store
from tests.chaos import clock, damage, processes
from tests.chaos.clock import Clock
from tests.cli.fake_adapt import command
from tests.runtime.fake_run import execute, states
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.test_local import num_marks, wait_until

DAY_S = 86400
AS_ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
# In a process namespace of its own a holder cannot be seen: only its heartbeat tells.
APART = ("unshare", *AS_ROOT, "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture(autouse=True)
def _recipe(tmp_path: Path) -> None:
    (tmp_path / "fake.yaml").write_text("recipe: 1\nname: fake\nsource: {use: nothing}\n")


def slow(tmp_path: Path, num_batches: int, stage: str = "slow") -> Plan:
    build = PlanBuilder()
    build.add("count")
    marks = str(tmp_path / "marks")
    build.add(stage, "count", num_batches=num_batches, batch_s=0.1, marks=marks)
    build.add("double", stage)
    return build.plan()


def start(plan: Plan, tmp_path: Path, more: dict[str, str] | None = None, *before: str):
    """Start `adapt run` on a plan; its processes carry the mark of the test's folder."""
    environment = {"PATH": "/usr/bin:/bin", processes.MARK: str(tmp_path), **(more or {})}
    return subprocess.Popen(
        [*before, *command(plan, tmp_path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(plan: Plan, tmp_path: Path) -> tuple[int, str]:
    """Return exit code and output of an undisturbed `adapt run`."""
    started = start(plan, tmp_path)
    output, _ = started.communicate(timeout=60)
    return started.returncode, output


def manifests(plan: Plan, root: Path) -> list[object]:
    found = [Store(root).get(node.key) for node in plan.nodes]
    return [artifact and artifact.manifest for artifact in found]


def undisturbed(plan: Plan, tmp_path: Path) -> list[object]:
    """Return the manifests that a plan gives when nothing happens."""
    execute(plan, tmp_path / "undisturbed")
    return manifests(plan, tmp_path / "undisturbed")


def as_if_nothing_had_been(plan: Plan, tmp_path: Path) -> bool:
    found = manifests(plan, tmp_path / "store")
    return found == undisturbed(plan, tmp_path)


def newest(tmp_path: Path):
    return runs.all_runs(Store(tmp_path / "store"))[-1]


def test_when_the_engine_is_killed_its_workers_and_their_children_die_with_it(tmp_path: Path):
    plan = slow(tmp_path, 300, "family")
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 2)
    assert {process.name() for process in processes.marked(str(tmp_path))} >= {"family", "child"}
    engine.kill()
    engine.communicate()

    assert processes.wait_until_gone(str(tmp_path), timeout_s=5) == []


def test_after_a_killed_engine_the_same_command_goes_on_and_does_nothing_twice(tmp_path: Path):
    plan = slow(tmp_path, 8)
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 3)
    engine.kill()
    engine.communicate()
    processes.wait_until_gone(str(tmp_path), timeout_s=5)
    before = num_marks(tmp_path)
    code, _ = run(plan, tmp_path)

    assert code == 0
    assert states(newest(tmp_path)) == {"count": "cached", "slow": "ran", "double": "ran"}
    assert before <= num_marks(tmp_path) <= 9
    assert as_if_nothing_had_been(plan, tmp_path)


def test_a_killed_worker_is_started_again_and_goes_on_from_its_journal(tmp_path: Path):
    plan = slow(tmp_path, 12, "family")
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 4)
    (worker,) = [p for p in processes.marked(str(tmp_path)) if p.name() == "family"]
    worker.kill()
    output, _ = engine.communicate(timeout=60)

    assert engine.returncode == 0, output
    assert newest(tmp_path).status().nodes["family"].attempts == 2
    assert num_marks(tmp_path) <= 13
    assert processes.marked(str(tmp_path)) == []
    assert as_if_nothing_had_been(plan, tmp_path)


@pytest.mark.parametrize("number", [2, 4, 8])
def test_runs_started_at_once_build_each_node_once_and_all_end_well(tmp_path: Path, number: int):
    plan = slow(tmp_path, 5)
    started = [start(plan, tmp_path) for _ in range(number)]
    outputs = [engine.communicate(timeout=60)[0] for engine in started]

    assert [engine.returncode for engine in started] == [0] * number, "\n".join(outputs)
    assert num_marks(tmp_path) == 5
    all_states = [states(found) for found in runs.all_runs(Store(tmp_path / "store"))]
    for node in plan.nodes:
        assert sorted(found[node.id] for found in all_states) == ["cached"] * (number - 1) + ["ran"]
    assert as_if_nothing_had_been(plan, tmp_path)


def test_of_many_runs_one_is_killed_and_the_others_take_over(tmp_path: Path):
    plan = slow(tmp_path, 20)
    started = [start(plan, tmp_path) for _ in range(3)]
    wait_until(lambda: num_marks(tmp_path) >= 5)
    workers = [p for p in processes.marked(str(tmp_path)) if p.name() == "slow"]
    started[0].kill()
    for engine in started:
        engine.communicate(timeout=60)

    assert len(workers) == 3
    assert [engine.returncode for engine in started] == [-signal.SIGKILL, 0, 0]
    assert num_marks(tmp_path) <= 21
    assert as_if_nothing_had_been(plan, tmp_path)


@pytest.mark.skipif(clock.library() is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_a_clock_that_jumps_gives_no_living_holders_lock_away(tmp_path: Path, jump_s: int):
    plan = slow(tmp_path, 30)
    watch = Clock(tmp_path / "clock")
    holder = start(plan, tmp_path, None, *APART)
    wait_until(lambda: num_marks(tmp_path) >= 2)
    waiting = start(plan, tmp_path, watch.environment())
    wait_until(lambda: "waiting" in _log_of_events(tmp_path))
    watch.shift(jump_s)
    outputs = [engine.communicate(timeout=60)[0] for engine in (holder, waiting)]

    assert (holder.returncode, waiting.returncode) == (0, 0), "\n".join(outputs)
    assert num_marks(tmp_path) == 30
    assert as_if_nothing_had_been(plan, tmp_path)


@pytest.mark.skipif(clock.library() is None, reason="libfaketime is not installed")
@pytest.mark.slow
def test_a_clock_that_is_set_back_does_not_keep_a_dead_holders_lock(tmp_path: Path):
    plan = slow(tmp_path, 30)
    watch = Clock(tmp_path / "clock")
    holder = start(plan, tmp_path, None, *APART)
    wait_until(lambda: num_marks(tmp_path) >= 2)
    for process in processes.marked(str(tmp_path)):
        process.kill()
    holder.communicate()
    watch.shift(-DAY_S)
    waiting = start(plan, tmp_path, watch.environment())
    output, _ = waiting.communicate(timeout=120)

    assert waiting.returncode == 0, output
    assert as_if_nothing_had_been(plan, tmp_path)


def test_a_store_that_is_deleted_under_a_run_ends_it_in_plain_words(tmp_path: Path):
    plan = slow(tmp_path, 20)
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 3)
    shutil.rmtree(tmp_path / "store")
    output, _ = engine.communicate(timeout=60)
    code, _ = run(plan, tmp_path)

    assert engine.returncode == 3, output
    assert "Traceback" not in output
    assert "store" in output
    assert code == 0
    assert as_if_nothing_had_been(plan, tmp_path)


def test_a_journal_that_is_deleted_under_a_run_costs_its_batches_and_nothing_else(tmp_path: Path):
    plan = slow(tmp_path, 20)
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 3)
    shutil.rmtree(tmp_path / "store" / "scratch" / plan.nodes[1].key)
    output, _ = engine.communicate(timeout=60)

    assert engine.returncode == 0, output
    assert as_if_nothing_had_been(plan, tmp_path)


def test_a_damaged_shard_of_a_journal_is_worked_on_again(tmp_path: Path):
    plan = slow(tmp_path, 8)
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 3)
    engine.kill()
    engine.communicate()
    processes.wait_until_gone(str(tmp_path), timeout_s=5)
    before = num_marks(tmp_path)
    damaged = [path for path in (tmp_path / "store" / "scratch").rglob("*") if path.is_file()]
    damage.do(damaged[0], "flip", Random(4))
    code, output = run(plan, tmp_path)

    assert code == 0, output
    assert num_marks(tmp_path) <= 9 + before // 2
    assert as_if_nothing_had_been(plan, tmp_path)


def test_an_input_that_is_changed_while_a_node_reads_it_is_made_anew_and_read_again(tmp_path: Path):
    plan = slow(tmp_path, 8, "late")
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 3)
    path = Store(tmp_path / "store").get(plan.nodes[0].key).file("rows-00000.jsonl")
    path.chmod(0o644)
    path.write_text(path.read_text().replace("2", "9"))
    output, _ = engine.communicate(timeout=60)

    assert engine.returncode == 0, output
    assert states(newest(tmp_path)) == {"count": "ran", "late": "ran", "double": "ran"}
    assert as_if_nothing_had_been(plan, tmp_path)


def _log_of_events(tmp_path: Path) -> str:
    logs = (tmp_path / "store").glob("runs/*/events.jsonl")
    return "".join(path.read_text() for path in logs)


if sys.platform != "linux":
    pytest.skip("needs /proc and unshare", allow_module_level=True)
