"""A disk that is full, or takes no writes, at every point where a run writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.plan.stage import Plan
from engine.runtime import runs
from engine.runtime.store import Store
from tests.chaos.disk import Disk, can_mount
from tests.runtime.fake_run import states
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.test_disasters import manifests, newest, run, start, undisturbed
from tests.runtime.test_local import num_marks, wait_until

pytestmark = pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The store is on a small disk, the recipe and what is compared are not."""
    (tmp_path / "fake.yaml").write_text("recipe: 1\nname: fake\nsource: {use: nothing}\n")
    with Disk(tmp_path / "store", 4 * MB) as disk:
        yield disk


def bulky(num_mb: int = 0, ballast: str = "", num_words: int = 0) -> Plan:
    build = PlanBuilder()
    build.add("count")
    build.add("bulk", "count", num_mb=num_mb, ballast=ballast, num_words=num_words)
    build.add("double", "count")
    return build.plan()


def make_room(disk: Disk, ballast: Path | None = None) -> None:
    disk.resize(64 * MB)
    if ballast is not None:
        ballast.write_bytes(b"")


def goes_on(plan: Plan, tmp_path: Path) -> bool:
    """Tell whether the same command now ends well, keeps what was done and gives the same."""
    done = [entry for entry in manifests(plan, tmp_path / "store") if entry is not None]
    code, output = run(plan, tmp_path)
    assert code == 0, output
    counted = list(states(newest(tmp_path)).values()).count("cached")
    assert counted == len(done)
    return manifests(plan, tmp_path / "store") == undisturbed(plan, tmp_path)


def says_what_to_do(output: str) -> bool:
    assert "Traceback" not in output
    assert "No space left on device" in output
    assert "make room" in output
    return True


def test_a_disk_that_fills_up_under_a_worker_fails_its_node_alone(tmp_path: Path, disk: Disk):
    plan = bulky(num_mb=8)
    code, output = run(plan, tmp_path)

    assert code == 3, output
    assert says_what_to_do(output)
    assert "run just this node again" in output
    found = dict(zip(("count", "bulk"), manifests(plan, tmp_path / "store"), strict=False))
    assert found["count"] is not None
    assert found["bulk"] is None
    make_room(disk)
    assert goes_on(plan, tmp_path)


def test_a_node_that_finds_no_room_leaves_what_it_had_written_free_again(
    tmp_path: Path, disk: Disk
):
    run(bulky(num_mb=8), tmp_path)

    assert disk.used_bytes() < MB


def test_a_disk_that_fills_up_while_an_artifact_is_published(tmp_path: Path, disk: Disk):
    ballast = tmp_path / "store" / "ballast"
    plan = bulky(num_mb=1, ballast=str(ballast))
    code, output = run(plan, tmp_path)

    assert code == 3, output
    assert says_what_to_do(output)
    assert Store(tmp_path / "store").get(plan.nodes[1].key) is None
    make_room(disk, ballast)
    assert goes_on(plan, tmp_path)


def test_a_disk_that_fills_up_while_the_event_log_is_written(tmp_path: Path, disk: Disk):
    ballast = tmp_path / "store" / "ballast"
    plan = bulky(ballast=str(ballast), num_words=200)
    code, output = run(plan, tmp_path)

    assert code == 3, output
    assert says_what_to_do(output)
    assert newest(tmp_path).status().state in ("failed", "killed")
    make_room(disk, ballast)
    assert goes_on(plan, tmp_path)


@pytest.mark.parametrize("num_files", range(0, 24, 3))
def test_a_disk_that_takes_no_more_files_at_any_point_of_a_run(
    tmp_path: Path, disk: Disk, num_files: int
):
    plan = bulky(num_mb=1)
    disk.limit_files(num_files)
    code, output = run(plan, tmp_path)

    assert code in (1, 3), output
    assert "Traceback" not in output
    assert "No space left on device" in output
    disk.limit_files(10_000)
    assert run(plan, tmp_path)[0] == 0
    assert manifests(plan, tmp_path / "store") == undisturbed(plan, tmp_path)


def test_a_read_only_store_is_refused_before_anything_runs(tmp_path: Path, disk: Disk):
    disk.make_read_only()
    code, output = run(bulky(), tmp_path)

    assert code == 1
    assert "store-not-writable" in output
    assert "Read-only file system" in output
    assert "--store" in output
    disk.make_writable()
    assert list((tmp_path / "store").iterdir()) == []


def test_a_store_that_becomes_read_only_ends_the_run_in_plain_words(tmp_path: Path, disk: Disk):
    build = PlanBuilder()
    build.add("count")
    build.add("slow", "count", num_batches=30, batch_s=0.1, marks=str(tmp_path / "marks"))
    plan = build.plan()
    engine = start(plan, tmp_path)
    wait_until(lambda: num_marks(tmp_path) >= 3)
    disk.make_read_only()
    output, _ = engine.communicate(timeout=60)
    disk.make_writable()

    assert engine.returncode == 3, output
    assert "Read-only file system" in output
    assert "--store" in output
    assert len(runs.all_runs(Store(tmp_path / "store"))) == 1
    assert run(plan, tmp_path)[0] == 0
    assert num_marks(tmp_path) <= 31
    assert manifests(plan, tmp_path / "store") == undisturbed(plan, tmp_path)
