"""What a run may cost beside its tasks, guarded with room for noise (`slack` of `test_budgets.py`).

A promise that is a ratio is measured as one: its two sides in turns, in one process.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.runtime import outlook, timings
from engine.runtime.digests import DigestCache
from engine.runtime.store import Store
from engine.sources import image_folder
from tests.bench import hash_speed, nine, peers, projects, scale
from tests.bench.measure import Cost, cost
from tests.bench.test_budgets import NOISE, RUNS, slack

pytestmark = pytest.mark.alone  # it measures

NOTHING_S, WHOLE_S = 0.040, 1.2  # of nine tasks that do nothing, one process each
LOG_S, REASONS_S = 0.100, 0.100  # of a million lines of progress; of 2,000 artifacts
MB = 1 << 20


class Nine:
    """The nine tasks of the shared workload, through the real command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = projects.floor(folder / "nine")
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(peers.ROOT),
        }

    def run(self) -> Cost:
        command = [sys.executable, nine.__file__, "run", "nine.yaml", "--json"]
        found = cost(command, folder=self.folder, environ=self.environ)
        assert found.exit_code == 0, found.stderr
        return found

    def change(self) -> None:
        path = self.folder / "nine.yaml"
        before = '"needs": ["second"], "value": '
        assert f"{before}1" in path.read_text()
        path.write_text(path.read_text().replace(f"{before}1", f"{before}2"))


def states(found: Cost) -> list[str]:
    return [node["state"] for node in json.loads(found.stdout.splitlines()[-1])["nodes"]]


def ratio(work: Callable[[], object], beside: Callable[[], object], limit: float) -> float:
    """Return the least of a few ratios of processor time, or the first within the limit."""
    found: list[float] = []
    while len(found) < RUNS and min(found, default=limit) >= limit:
        start = time.process_time()
        work()
        middle = time.process_time()
        beside()
        found.append((middle - start) / (time.process_time() - middle))
    return min(found)


def least_s(work: Callable[[], object], budget_s: float) -> float:
    """Return the least of a few processor times, or the first within the budget."""
    found: list[float] = []
    while len(found) < RUNS and min(found, default=budget_s) >= budget_s:
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Nine, Cost]:
    tasks = Nine(tmp_path_factory.mktemp("nine"))
    return tasks, tasks.run()


def test_a_whole_run_of_nine_tasks_is_within_its_budget(finished: tuple[Nine, Cost]):
    _, whole = finished

    assert states(whole) == ["ran"] * 9
    assert whole.cpu_s < WHOLE_S * slack()


def test_a_run_with_nothing_to_do_is_within_its_budget(finished: tuple[Nine, Cost]):
    tasks, _ = finished
    costs = [tasks.run() for _ in range(RUNS)]

    assert all(states(found) == ["cached"] * 9 for found in costs)
    assert min(found.cpu_s for found in costs) < NOTHING_S * slack()


def test_after_one_change_early_cut_off_leaves_five_of_nine(finished: tuple[Nine, Cost]):
    tasks, _ = finished
    tasks.change()

    assert states(tasks.run()) == ["cached"] * 2 + ["ran"] * 5 + ["linked"] * 2


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand files, older than what is called racy, 100 MB in all."""
    folder = tmp_path_factory.mktemp("pictures")
    block = os.urandom(50_000)
    for number in range(2000):
        path = folder / f"{number % 10}" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(number.to_bytes(4, "little") + block)
    time.sleep(2.1)
    return folder


def fingerprint(folder: Path, cache: Path) -> DigestCache:
    digests = DigestCache(cache)
    image_folder.fingerprint(image_folder.Params(path=str(folder)), Path, digests)
    return digests


def test_a_first_fingerprint_takes_at_most_twice_the_digest(pictures: Path, tmp_path: Path):
    def digest_alone() -> None:
        for _ in range(100):
            hashlib.sha256(bytes(MB)).hexdigest()

    found = ratio(lambda: fingerprint(pictures, tmp_path / "none"), digest_alone, 2.0)

    assert found < 2.0 * NOISE


def test_a_warm_fingerprint_takes_little_more_than_asking_for_stat(pictures: Path, tmp_path: Path):
    fingerprint(pictures, tmp_path / "digests").save()
    found = ratio(
        lambda: fingerprint(pictures, tmp_path / "digests"),
        lambda: hash_speed.stat_walk(str(pictures)),
        2.5,
    )

    assert found < 2.5 * NOISE


def test_a_publication_takes_at_most_twice_the_digest(tmp_path: Path):
    store, node = Store(tmp_path), scale.node("bench", 1)

    def publish(number: int) -> None:
        one = scale.node("bench", number)
        staging = store.staging(one.key)
        for name in "abcd":
            (staging / name).write_bytes(bytes(32 * MB))
        start = time.process_time()
        store.publish(one, staging, {}, {})
        found.append(time.process_time() - start)

    found: list[float] = []
    publish(1)
    publish(2)
    start = time.process_time()
    hashlib.sha256(bytes(128 * MB)).hexdigest()
    alone_s = time.process_time() - start

    assert store.get(node.key) is not None
    assert min(found) < 2.0 * alone_s * NOISE


def test_the_times_of_a_run_of_a_hundred_thousand_events_are_found_at_once(tmp_path: Path):
    store = Store(tmp_path)
    scale.made_run(store, 100_000)

    assert len(timings.measurements(store)) == scale.NUM_STAGES
    assert least_s(lambda: timings.measurements(store), LOG_S / 10) < LOG_S / 10 * slack()


def test_reasons_in_a_store_of_two_thousand_artifacts_are_within_their_budget(tmp_path: Path):
    store = scale.made_store(tmp_path, 2000)
    moved = tuple(scale.node(f"stage{n}", n, -1) for n in range(scale.NUM_STAGES))
    plan = scale.Plan("moved", moved)
    found = outlook.outlook(plan, store)

    assert {item.reason for item in found} == {"upstream: its input `inputs.rows.rows` changed"}
    assert least_s(lambda: outlook.outlook(plan, store), REASONS_S) < REASONS_S * slack()
