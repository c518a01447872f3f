from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.artifacts import Artifact, Manifest
from engine.plan import graph, keys
from engine.plan.stage import Node, Plan
from engine.runtime import runs
from engine.runtime.events import Event, NodeProgress, NodeRetried, NodeStarted
from engine.runtime.executor import Outcome
from engine.runtime.store import Store
from tests.runtime import fake_run
from tests.runtime.fake_run import execute, states
from tests.runtime.fake_stages import PlanBuilder


def chain(num_rows: int = 3, note: str = "", ledger: str = "") -> Plan:
    build = PlanBuilder()
    build.add("count", num_rows=num_rows, note=note, ledger=ledger)
    build.add("double", "count")
    return build.plan()


def test_a_plan_runs_in_order_and_publishes_every_node(tmp_path: Path):
    run, outcome = execute(chain(), tmp_path)

    assert outcome == Outcome()
    assert states(run) == {"count": "ran", "double": "ran"}
    artifact = Store(tmp_path).get(chain().node("double").key)
    assert [row["number"] for row in artifact.rows("rows")] == [0, 2, 4]


def test_a_second_run_finds_everything_cached_and_starts_nothing(tmp_path: Path):
    execute(chain(), tmp_path)
    run, _ = execute(chain(), tmp_path)

    assert states(run) == {"count": "cached", "double": "cached"}
    assert not (run.path / "logs").exists()


def test_an_equal_result_upstream_links_what_depends_on_it(tmp_path: Path):
    execute(chain(), tmp_path)
    run, _ = execute(chain(note="moves the key"), tmp_path)

    assert states(run) == {"count": "ran", "double": "linked"}
    plan = chain(note="moves the key")
    artifact = Store(tmp_path).get(plan.node("double").key)
    assert artifact.manifest.parents == (plan.node("count").key,)


def test_another_result_upstream_runs_what_depends_on_it(tmp_path: Path):
    execute(chain(), tmp_path)
    run, _ = execute(chain(num_rows=4), tmp_path)

    assert states(run) == {"count": "ran", "double": "ran"}


def test_a_ledger_that_changed_reruns_nothing_that_does_not_read_it(tmp_path: Path):
    execute(chain(ledger="one row dropped"), tmp_path)
    run, _ = execute(chain(ledger="dropped for another reason"), tmp_path)

    assert states(run) == {"count": "ran", "double": "linked"}


def test_a_stage_that_reads_what_its_port_does_not_name_is_a_mistake_of_ours(tmp_path: Path):
    artifact = Artifact(tmp_path, Manifest("k", "count", (), {}, (), {}, ""), reads=("rows",))

    assert artifact.num_rows("rows") == 0
    with pytest.raises(AssertionError, match="`ledger` is read"):
        list(artifact.rows("ledger"))


def test_time_memory_and_counts_of_a_node_are_recorded(tmp_path: Path):
    run, _ = execute(chain(), tmp_path)

    node = run.status().nodes["count"]
    assert node.counts == {"rows": 3}
    assert (node.done, node.total, node.unit) == (3, 3, "rows")
    assert node.cpu_s > 0
    # Linux counts what the parent had when the child was made: here, that is pytest.
    parent_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    assert 0.005 < node.peak_memory_gb < max(0.3, 1.1 * parent_gb)
    assert "wrote 3 rows with seed 7" in run.log_path("count").read_text()


def test_a_failure_skips_what_needs_it_and_lets_the_rest_finish(tmp_path: Path):
    build = PlanBuilder()
    build.add("fail")
    build.add("double/after", "fail")
    build.add("count")
    run, outcome = execute(build.plan(), tmp_path)

    assert states(run) == {"fail": "failed", "double/after": "skipped", "count": "ran"}
    (failure,) = outcome.failures
    assert (failure.message, failure.hint) == ("there are no rows to read", "choose another source")
    assert "about to fail" in failure.log_tail
    assert run.status().state == "failed"


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_the_log(tmp_path: Path):
    build = PlanBuilder()
    build.add("fail", how="bug")
    run, outcome = execute(build.plan(), tmp_path)

    assert outcome.failures[0].message == "ZeroDivisionError: division by zero"
    assert "Traceback" in run.log_path("fail").read_text()


def test_a_process_killed_from_outside_is_a_failure_that_says_so(tmp_path: Path):
    build = PlanBuilder()
    build.add("fail", how="kill", marks=str(tmp_path / "marks"))
    _, outcome = execute(build.plan(), tmp_path)

    assert "ended by SIGKILL" in outcome.failures[0].message
    assert "out of memory" not in outcome.failures[0].message
    shrinks = (tmp_path / "marks").read_text().split()
    assert shrinks == ["0", "0", "0", "0"]  # smaller batches would change the last bits


@pytest.mark.parametrize("how", ["network", "memory", "kill"])
def test_what_may_pass_is_tried_again_with_growing_pauses(tmp_path: Path, how: str):
    build = PlanBuilder()
    build.add("fail", how=how, marks=str(tmp_path / "marks"), times=2)
    build.add("double", "fail")
    waits: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, NodeRetried):
            waits.append(event.wait_s)

    run, outcome = execute(build.plan(), tmp_path, watch=watch)

    assert outcome == Outcome()
    assert states(run) == {"fail": "ran", "double": "ran"}
    assert waits == [0.05, 0.2]


@pytest.mark.parametrize("how", ["abort", "engine"])
def test_a_node_that_isolates_rows_may_crash_more_often_than_others(tmp_path: Path, how: str):
    build = PlanBuilder()
    build.add("isolating", how=how, marks=str(tmp_path / "isolating"), times=6)
    build.add("fail", how=how, marks=str(tmp_path / "fail"), times=6)
    run, outcome = execute(build.plan(), tmp_path)

    assert states(run) == {"isolating": "ran", "fail": "failed"}
    assert [failure.node.id for failure in outcome.failures] == ["fail"]
    (artifact,) = tmp_path.rglob("has_crashed.json")
    assert artifact.read_text() == "true\n"


@pytest.mark.parametrize("how", ["stage", "bug"])
def test_what_will_not_pass_fails_at_once(tmp_path: Path, how: str):
    build = PlanBuilder()
    build.add("fail", how=how, marks=str(tmp_path / "marks"))
    execute(build.plan(), tmp_path)

    assert len((tmp_path / "marks").read_text().split()) == 1


def test_parts_do_each_shard_once_and_give_what_one_process_gives(tmp_path: Path):
    build = PlanBuilder()
    marks = str(tmp_path / "marks")
    build.add("sharded", num_batches=9, batch_s=0.01, marks=marks)
    run, outcome = execute(build.plan(), tmp_path / "parts", threads=3)

    assert outcome == Outcome()
    jobs = sorted(path.name for path in (run.path / "jobs").iterdir())
    assert jobs == ["sharded.json", *(f"sharded.part-{index}.json" for index in range(3))]
    assert sorted(map(int, (tmp_path / "marks").read_text().split())) == list(range(9))
    assert run.status().nodes["sharded"].done == 9
    key = build.nodes[0].key
    in_parts = Store(tmp_path / "parts").get(key)
    execute(build.plan(), tmp_path / "whole", threads=1)
    assert in_parts.manifest == Store(tmp_path / "whole").get(key).manifest


def test_a_part_that_fails_ends_the_others_and_the_node(tmp_path: Path):
    build = PlanBuilder()
    build.add("fail_in_parts")
    run, outcome = execute(build.plan(), tmp_path, threads=3)

    assert [failure.message for failure in outcome.failures] == ["there are no rows to read"]
    assert len(list((run.path / "jobs").iterdir())) == 3
    assert states(run) == {"fail_in_parts": "failed"}


def test_a_lost_part_is_started_again_and_the_others_go_on(tmp_path: Path):
    build = PlanBuilder()
    marks = tmp_path / "marks"
    build.add("sharded", num_batches=12, batch_s=0.1, marks=str(marks))
    pids: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, NodeStarted):
            pids.append(event.pid)
        if isinstance(event, NodeProgress) and event.done >= 2 and len(pids) == 1:
            os.kill(pids[0], signal.SIGKILL)
            pids.append(0)

    run, outcome = execute(build.plan(), tmp_path / "store", threads=2, watch=watch)

    assert outcome == Outcome()
    assert run.status().nodes["sharded"].attempts == 2
    done = marks.read_text().split()
    assert {int(number) for number in done} == set(range(12))
    assert len(done) <= 13


def test_a_node_that_wants_many_cores_gets_all_but_one(tmp_path: Path):
    build = PlanBuilder()
    build.add("environment")
    execute(build.plan(), tmp_path, threads=3)

    facts = Store(tmp_path).get(build.plan().node("environment").key).json("facts.json")
    assert facts == {
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "num_threads": "2",
    }


def slow(tmp_path: Path, num_batches: int) -> Plan:
    build = PlanBuilder()
    build.add("count")
    marks = str(tmp_path / "marks")
    build.add("slow", "count", num_batches=num_batches, batch_s=0.1, marks=marks)
    return build.plan()


def start(plan: Plan, tmp_path: Path, num_gpus: int = 0) -> subprocess.Popen[bytes]:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(graph.to_json(plan)))
    command = [sys.executable, fake_run.__file__, path, tmp_path / "store", str(num_gpus)]
    return subprocess.Popen(command)


def wait_until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def renamed(node: Node) -> Node:
    """Give a node a key of its own: equal work under two names would be done once."""
    preimage = {**node.preimage, "id": node.id}
    return replace(node, preimage=preimage, key=keys.digest(preimage))


def num_marks(tmp_path: Path) -> int:
    path = tmp_path / "marks"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_killed_engine_costs_at_most_one_batch_and_leaves_no_process(tmp_path: Path):
    plan = slow(tmp_path, 8)
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 3)
    engine.kill()
    engine.wait()
    (dead,) = runs.all_runs(Store(tmp_path / "store"))
    assert dead.status().state == "killed"
    assert "running" not in {node.state for node in dead.status().nodes.values()}

    run, _ = execute(plan, tmp_path / "store")

    assert states(run) == {"count": "cached", "slow": "ran"}
    assert num_marks(tmp_path) <= 9
    assert not list((tmp_path / "store" / "scratch").iterdir())
    artifact = Store(tmp_path / "store").get(plan.nodes[1].key)
    numbers = [row["number"] for row in artifact.rows("rows")]
    assert numbers == list(range(8))


def test_an_interrupt_ends_the_processes_and_keeps_what_is_finished(tmp_path: Path):
    plan = slow(tmp_path, 200)
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 1)
    engine.send_signal(signal.SIGINT)

    assert engine.wait(timeout=10) == 128 + signal.SIGINT
    (run,) = runs.all_runs(Store(tmp_path / "store"))
    assert run.status().state == "stopped"
    assert states(run) == {"count": "ran", "slow": "stopped"}
    count = num_marks(tmp_path)
    time.sleep(0.3)
    assert num_marks(tmp_path) == count


def test_a_stage_that_asks_saves_what_it_has_when_the_run_is_stopped(tmp_path: Path):
    build = PlanBuilder()
    build.add("stoppable", num_batches=40, batch_s=0.05)
    engine = start(build.plan(), tmp_path)
    store = tmp_path / "store"

    def has_begun() -> bool:
        nodes = [run.status().nodes.get("stoppable") for run in runs.all_runs(Store(store))]
        return any(node is not None and node.done for node in nodes)

    wait_until(has_begun)
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(timeout=10) == 128 + signal.SIGTERM

    execute(build.plan(), store)

    assert 0 < Store(store).get(build.nodes[0].key).json("first.json") < 40


def test_two_runs_at_once_do_the_work_once(tmp_path: Path):
    plan = slow(tmp_path, 5)
    other = start(plan, tmp_path)
    run, _ = execute(plan, tmp_path / "store")

    assert other.wait(timeout=30) == 0
    assert num_marks(tmp_path) == 5
    found = [states(run)["slow"] for run in runs.all_runs(Store(tmp_path / "store"))]
    assert sorted(found) == ["cached", "ran"]
    assert states(run).keys() == {"count", "slow"}


def test_an_input_that_goes_under_a_run_is_made_anew(tmp_path: Path):
    removed: list[str] = []
    reasons: list[str] = []
    key = chain().node("count").key

    def watch(event: Event) -> None:
        if isinstance(event, NodeStarted) and event.node == "double" and not removed:
            removed.append(key)
            shutil.rmtree(Store(tmp_path).get(key).path)
        if isinstance(event, NodeRetried):
            reasons.append(event.reason)

    run, outcome = execute(chain(), tmp_path, watch=watch)

    assert outcome == Outcome()
    assert states(run) == {"count": "ran", "double": "ran"}
    assert reasons == ["its input `count` has gone from the store; made anew: count"]


def test_two_runs_never_have_a_gpu_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the locks are
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    marks = tmp_path / "marks"
    engines = []
    for name in ("x", "y"):
        build = PlanBuilder()
        for number in range(3):
            build.add(f"on_gpu/{name}{number}", stage="on_gpu", batch_s=0.1, marks=str(marks))
            build.nodes[-1] = renamed(build.nodes[-1])
        (tmp_path / name).mkdir()
        engines.append(start(build.plan(), tmp_path / name, num_gpus=1))
    assert [engine.wait(timeout=60) for engine in engines] == [0, 0]

    spans = sorted(tuple(map(float, line.split()[1:])) for line in marks.read_text().splitlines())
    assert len(spans) == 6
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert {line.split()[0] for line in marks.read_text().splitlines()} == {"GPU-a"}


def test_independent_nodes_run_at_the_same_time(tmp_path: Path):
    build = PlanBuilder()
    build.add("slow/a", num_batches=1, batch_s=1.0)
    build.add("slow/b", num_batches=1, batch_s=1.01)
    running: list[int] = []
    alive: set[str] = set()

    def watch(event: object) -> None:
        name = type(event).__name__
        node = getattr(event, "node", "")
        if name == "NodeStarted":
            alive.add(node)
        if name == "NodeFinished":
            alive.discard(node)
        running.append(len(alive))

    execute(build.plan(), tmp_path, watch=watch)

    assert max(running) == 2


def test_the_job_of_a_node_holds_no_environment(tmp_path: Path):
    os.environ["ADAPT_TEST_SECRET"] = "hunter2"
    try:
        run, _ = execute(chain(), tmp_path)
    finally:
        del os.environ["ADAPT_TEST_SECRET"]

    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert not [path for path in files if "hunter2" in path.read_text()]
