from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.plan import graph
from engine.plan.stage import Plan
from engine.runtime.events import Event, NodeProgress
from engine.runtime.executor import Outcome
from engine.runtime.runs import Run
from engine.runtime.store import Store
from tests.runtime import fake_run
from tests.runtime.fake_run import execute, states
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.ray_nodes import WARNINGS, Nodes, workers

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, *map(pytest.mark.filterwarnings, WARNINGS)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    found.add()
    found.add()
    yield found
    found.close()


def broad(**params: object) -> Plan:
    """A plan with light nodes, parts of shards and a training."""
    build = PlanBuilder()
    build.add("count", num_rows=5)
    build.add("double", "count")
    build.add("sharded", "double", num_batches=8, **params)
    build.add("environment", "count")
    return build.plan()


def slow(tmp_path: Path, num_batches: int) -> Plan:
    build = PlanBuilder()
    build.add("count")
    marks = str(tmp_path / "marks")
    build.add("slow", "count", num_batches=num_batches, batch_s=0.3, marks=marks)
    return build.plan()


def start(plan: Plan, tmp_path: Path, address: str) -> subprocess.Popen[bytes]:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(graph.to_json(plan)))
    return subprocess.Popen(
        [sys.executable, fake_run.__file__, path, tmp_path / "store", "0", address]
    )


def wait_until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def marks(tmp_path: Path) -> list[str]:
    path = tmp_path / "marks"
    return path.read_text().splitlines() if path.exists() else []


def events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.events_path.read_text().splitlines()]


def contents(plan: Plan, root: Path) -> dict[str, str]:
    store = Store(root)
    return {node.id: store.get(node.key).manifest.content_digest for node in plan.nodes}


def test_two_nodes_make_what_one_machine_makes(tmp_path: Path, nodes: Nodes):
    run, outcome = execute(broad(), tmp_path / "ray", ray=nodes.address)
    execute(broad(), tmp_path / "local")

    assert outcome == Outcome()
    assert set(states(run).values()) == {"ran"}
    assert contents(broad(), tmp_path / "ray") == contents(broad(), tmp_path / "local")


@pytest.mark.slow
def test_parts_of_a_stage_are_spread_over_the_nodes(tmp_path: Path, nodes: Nodes):
    build = PlanBuilder()
    build.add("where", stage="sharded", num_batches=8, batch_s=0.3, marks=str(tmp_path / "marks"))
    run, _ = execute(build.plan(), tmp_path / "store", ray=nodes.address)

    parts = [event for event in events(run) if event["type"] == "node_progress"]
    assert parts[-1]["done"] == parts[-1]["total"] == 8
    assert sorted(marks(tmp_path)) == sorted(map(str, range(8)))


def test_what_a_node_prints_is_in_the_log_of_the_run(tmp_path: Path, nodes: Nodes):
    build = PlanBuilder()
    build.add("count", num_rows=4)
    run, _ = execute(build.plan(), tmp_path, ray=nodes.address)

    assert "wrote 4 rows with seed 7" in run.log_path("count").read_text()


def test_a_stage_that_fails_on_a_node_says_why(tmp_path: Path, nodes: Nodes):
    build = PlanBuilder()
    build.add("fail")
    build.add("double", "fail")
    run, outcome = execute(build.plan(), tmp_path, ray=nodes.address)

    (failure,) = outcome.failures
    assert (failure.message, failure.hint) == (
        "there are no rows to read",
        "choose another source",
    )
    assert failure.log_tail == ("about to fail",)
    assert states(run) == {"fail": "failed", "double": "skipped"}


@pytest.mark.slow
def test_a_process_that_was_killed_on_a_node_is_tried_again(tmp_path: Path, nodes: Nodes):
    build = PlanBuilder()
    build.add("fail", how="kill", times=1, marks=str(tmp_path / "marks"))
    run, outcome = execute(build.plan(), tmp_path / "store", ray=nodes.address)

    assert outcome == Outcome()
    assert states(run) == {"fail": "ran"}
    assert len(marks(tmp_path)) == 2


@pytest.mark.slow
def test_a_process_sees_the_gpu_that_ray_gave_it_and_shares_it_with_nobody(
    tmp_path: Path, nodes: Nodes
):
    node = nodes.add(num_cpus=2, num_gpus=2)
    build = PlanBuilder()
    for name in "abcd":
        build.add(
            f"on_gpu/{name}",
            stage="on_gpu",
            batch_s=0.2,
            marks=str(tmp_path / "marks"),
            num_batches=ord(name),
        )
    _, outcome = execute(build.plan(), tmp_path / "store", ray=nodes.address, num_gpus=2)
    nodes.kill(node)

    spans: dict[str, list[tuple[float, float]]] = {}
    for line in marks(tmp_path):
        gpu, began, ended = line.split()
        spans.setdefault(gpu, []).append((float(began), float(ended)))
    assert outcome == Outcome()
    assert set(spans) <= {"0", "1"}
    assert sum(map(len, spans.values())) == 4
    for found in spans.values():
        found.sort()
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(found))


def test_a_node_that_dies_in_the_middle_costs_at_most_one_batch(tmp_path: Path, nodes: Nodes):
    plan = slow(tmp_path, 12)
    lost: list[str] = []

    def lose(event: Event) -> None:
        if (
            isinstance(event, NodeProgress)
            and event.node == "slow"
            and event.done >= 3
            and not lost
        ):
            lost.append("node")
            (worker,) = workers(tmp_path)
            nodes.kill(nodes.host_of(worker))

    run, outcome = execute(plan, tmp_path / "store", ray=nodes.address, watch=lose)
    nodes.add()
    execute(plan, tmp_path / "local")

    assert lost
    assert outcome == Outcome()
    assert contents(plan, tmp_path / "store") == contents(plan, tmp_path / "local")
    retried = [event["reason"] for event in events(run) if event["type"] == "node_retried"]
    assert retried == ["its machine of the Ray cluster was lost"]
    assert 12 + 12 <= len(marks(tmp_path)) <= 12 + 13  # those of the local run, too


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_goes_on_and_does_no_batch_twice(
    tmp_path: Path, nodes: Nodes
):
    plan = slow(tmp_path, 12)
    driver = start(plan, tmp_path, nodes.address)
    wait_until(lambda: len(marks(tmp_path)) >= 3)
    driver.kill()
    driver.wait()
    wait_until(lambda: not workers(tmp_path), timeout_s=15)
    done_before = len(marks(tmp_path))

    assert done_before < 12
    run, outcome = execute(plan, tmp_path / "store", ray=nodes.address)
    assert outcome == Outcome()
    assert states(run) == {"count": "cached", "slow": "ran"}
    assert 12 <= len(marks(tmp_path)) <= 13


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_leaves_no_process_on_the_nodes(tmp_path: Path, nodes: Nodes):
    plan = slow(tmp_path, 200)
    driver = start(plan, tmp_path, nodes.address)
    wait_until(lambda: len(marks(tmp_path)) >= 2)
    began = time.monotonic()
    driver.send_signal(signal.SIGTERM)

    assert driver.wait(timeout=15) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 10
    assert not workers(tmp_path)


@pytest.mark.slow
def test_a_node_that_joins_is_used(tmp_path: Path, nodes: Nodes):
    build = PlanBuilder()
    for number in range(8):
        build.add(f"slow/{number}", num_batches=2 + number, batch_s=0.5)
    joined: list[object] = []
    most = [0]

    def join(event: Event) -> None:
        if not joined:
            joined.append(nodes.add(num_cpus=3))
        most[0] = max(most[0], len(workers(tmp_path)))

    _, outcome = execute(build.plan(), tmp_path, threads=0, ray=nodes.address, watch=join)
    nodes.kill(joined[0])

    assert outcome == Outcome()
    assert most[0] > 2
