"""The shared store on a real S3 server (moto) with the real client (s3fs), and a bad line to it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.artifacts import FileEntry
from engine.plan import graph
from engine.plan.stage import Plan
from engine.runtime import grades, remote
from engine.runtime.remote import Remote, RemoteError
from engine.runtime.shared import Mirror, SharedLock, SharedStore
from engine.runtime.store import SEALED_NS, Store, _sealed_text
from tests.runtime import fake_run
from tests.runtime.fake_run import execute, states
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.s3_server import ENVIRON, Proxy, s3_port
from tests.runtime.test_store import node, publish

__all__ = ["s3_port"]


@pytest.fixture
def proxy(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(s3_port)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def url(proxy: Proxy) -> str:
    import s3fs

    bucket = f"b{secrets.token_hex(6)}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/team"


def opened(folder: Path, url: str) -> SharedStore:
    return SharedStore(folder, Remote(url, pause_s=0.01))


def chain(num_rows: int = 3) -> Plan:
    build = PlanBuilder()
    build.add("count", num_rows=num_rows)
    build.add("double", "count")
    return build.plan()


def test_what_one_machine_published_another_finds_and_reads(tmp_path: Path, url: str):
    made = publish(opened(tmp_path / "a", url), node())
    found = opened(tmp_path / "b", url).get(node().key)

    assert found.manifest == made.manifest
    assert not found.path.exists()  # known, and not brought down until it is read
    assert found.file("model/weights.txt").read_text() == "hello"
    assert found.file("model/weights.txt").stat().st_mtime_ns == SEALED_NS


def test_to_know_what_is_there_takes_one_listing_and_no_file(
    tmp_path: Path, url: str, proxy: Proxy
):
    store = opened(tmp_path / "a", url)
    for number in range(5):
        publish(store, node(num_rows=number))
    keys = [node(num_rows=number).key for number in range(50)]
    assert len(opened(tmp_path / "b", url).get_all(keys)) == 5
    assert not [line for line in proxy.lines if "weights.txt" in line and "GET" in line]
    proxy.lines.clear()
    assert len(opened(tmp_path / "b", url).get_all(keys)) == 5

    assert len(proxy.lines) == 1


def test_a_half_upload_is_no_artifact(tmp_path: Path, url: str, proxy: Proxy):
    proxy.mischief = lambda line: "half" if "weights.txt" in line and "PUT" in line else ""
    with pytest.raises(RemoteError, match="the shared store s3://"):
        publish(opened(tmp_path / "a", url), node())
    proxy.mischief = lambda line: ""

    assert opened(tmp_path / "b", url).get(node().key) is None
    publish(opened(tmp_path / "b", url), node())
    assert opened(tmp_path / "c", url).fetch(node().key) is not None


@pytest.mark.parametrize("what", ["throttle", "hang up", "cut", "stall"])
def test_a_store_that_misbehaves_now_and_then_is_asked_again(
    tmp_path: Path, url: str, proxy: Proxy, what: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote, "READ_TIMEOUT_S", 1)
    seen: set[str] = set()

    def first_time(line: str) -> str:
        is_new = line not in seen and (what != "stall" or "weights.txt" in line)
        seen.add(line)
        return what if is_new else ""

    proxy.mischief = first_time
    publish(opened(tmp_path / "a", url), node())
    seen.clear()

    found = opened(tmp_path / "b", url).fetch(node().key)
    assert found.file("model/weights.txt").read_text() == "hello"


def test_an_object_that_was_damaged_up_there_is_never_used(tmp_path: Path, url: str):
    publish(opened(tmp_path / "a", url), node())
    key = node().key
    remote = Remote(url)
    remote.write(f"artifacts/{key[:2]}/{key}/model/weights.txt", b"jello")
    other = opened(tmp_path / "b", url)

    assert other.fetch(key) is None
    assert other.get(key) is None
    assert opened(tmp_path / "c", url).get(key) is None


def test_a_wrong_bucket_and_missing_credentials_are_told_without_secrets(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(RemoteError) as found:
        publish(opened(tmp_path / "a", "s3://no-such-bucket-here/x"), node())
    assert "s3://no-such-bucket-here/x" in str(found.value)
    assert "hunter2" not in str(found.value)
    with pytest.raises(RemoteError, match="no way to open the store nowhere://"):
        Remote("nowhere://x/y")


def test_what_a_killed_machine_published_here_alone_goes_up_with_the_next_run(
    tmp_path: Path, url: str
):
    plan = chain()
    for made in plan.nodes:  # as if each upload had been cut off
        staging = Store(tmp_path / "a").staging(made.key)
        (staging / "rows-00000.jsonl").write_text('{"number": 1}\n')
        Store(tmp_path / "a").publish(made, staging, {"rows": 1}, {})
    run, _ = execute(plan, tmp_path / "a", remote=url)

    assert set(states(run).values()) == {"cached"}
    other, _ = execute(plan, tmp_path / "b", remote=url)
    assert set(states(other).values()) == {"cached"}


def test_scratch_that_is_of_no_use_does_not_come_back(tmp_path: Path, url: str):
    store = opened(tmp_path / "a", url)
    (store.scratch("k") / "0.jsonl").write_text("made of a damaged input")
    Mirror(store.remote, "k", store.scratch("k")).push()
    store.forget("k")

    with store.working_on("k"):
        assert list(store.scratch("k").iterdir()) == []


def test_a_manifest_whose_names_lead_out_of_its_artifact_is_none(tmp_path: Path, url: str):
    store = Store(tmp_path / "evil")
    artifact = publish(store, node())
    files = (FileEntry("../../../evil.txt", 5, "0" * 64),)
    text = _sealed_text(replace(artifact.manifest, files=files)) + "\n"
    key = node().key
    Remote(url).write(f"artifacts/{key[:2]}/{key}/manifest.json", text.encode())

    assert opened(tmp_path / "a", url).get(key) is None


def test_one_holder_has_a_lease_on_all_machines(tmp_path: Path, url: str):
    first = opened(tmp_path / "a", url).lock("k")
    second = opened(tmp_path / "b", url).lock("k")

    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()


def test_a_lease_without_a_heartbeat_is_taken_over_and_its_holder_knows(tmp_path: Path, url: str):
    now = [0.0]
    dead = opened(tmp_path / "a", url).lock("k")
    dead.try_acquire()
    watching = SharedLock(tmp_path / "b", "k", Remote(url), clock=lambda: now[0])

    assert not watching.try_acquire()
    now[0] = 59.0
    dead.touch()
    assert not watching.try_acquire()
    now[0] = 100.0
    assert not watching.try_acquire()
    assert dead.is_ours()
    now[0] = 120.0
    assert watching.try_acquire()
    assert not dead.is_ours()
    dead.release()
    assert watching.is_ours()


def test_of_two_watchers_who_look_at_the_same_version_one_replaces_it(url: str):
    remote = Remote(url, pause_s=0.01)
    remote.write("leases/k.json", b"dead")
    version = remote.version("leases/k.json")

    assert remote.replace("leases/k.json", b"first", version)
    assert not remote.replace("leases/k.json", b"second", version)
    assert remote.read("leases/k.json") == b"first"
    remote.remove("leases/k.json")
    assert not remote.replace("leases/k.json", b"third", version)
    assert remote.version("leases/k.json") is None


def test_scratch_of_a_lost_machine_comes_to_the_next(tmp_path: Path, url: str):
    remote = Remote(url)
    lost = tmp_path / "lost"
    (lost / "answers").mkdir(parents=True)
    (lost / "answers" / "0.jsonl").write_text("done")
    (lost / "answers" / "1.x.tmp").write_text("ha")
    Mirror(remote, "k", lost).push()
    new = tmp_path / "new"
    new.mkdir()
    Mirror(remote, "k", new).pull()

    files = [path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()]
    assert files == ["answers/0.jsonl"]


def start(plan: Plan, folder: Path, url: str) -> subprocess.Popen[bytes]:
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(graph.to_json(plan)))
    command = [
        sys.executable,
        fake_run.__file__,
        folder / "plan.json",
        folder / "store",
        "0",
        "",
        url,
    ]
    return subprocess.Popen(command)


def test_two_machines_do_the_work_once(tmp_path: Path, url: str):
    build = PlanBuilder()
    marks = tmp_path / "marks"
    build.add("slow", num_batches=6, batch_s=0.2, marks=str(marks))
    build.add("double", "slow")
    engines = [start(build.plan(), tmp_path / name, url) for name in ("a", "b")]

    assert [engine.wait(timeout=120) for engine in engines] == [0, 0]
    assert len(marks.read_text().split()) == 6


def test_a_machine_that_is_lost_leaves_its_shards_to_the_next(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ADAPT_TEST_QUICK_S", "1")  # read by the fake worker alone
    build = PlanBuilder()
    marks = tmp_path / "marks"
    build.add("slow", num_batches=30, batch_s=0.2, marks=str(marks))
    lost = start(build.plan(), tmp_path / "a", url)
    key = build.nodes[0].key
    deadline = time.monotonic() + 60
    remote = Remote(url)
    while sum(1 for _ in remote.names(f"scratch/{key}")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(lost.pid, signal.SIGKILL)
    lost.wait()
    num_kept = sum(1 for _ in remote.names(f"scratch/{key}"))
    num_done = len(marks.read_text().split())

    run, _ = execute(build.plan(), tmp_path / "b" / "store", remote=url)
    assert states(run) == {"slow": "ran"}
    assert len(marks.read_text().split()) <= 30 + num_done - num_kept
    assert not list(remote.names(f"scratch/{key}"))


def test_grades_of_one_machine_are_seen_on_another(tmp_path: Path, url: str):
    here, there = opened(tmp_path / "here", url), opened(tmp_path / "there", url)
    tasks = publish(here, node(), "kept")
    for store, task in ((here, "a"), (there, "b")):
        session = grades.Session(store, tasks.manifest.key, "anna")
        journal = grades.Journal(session)
        journal.add(task=task, row={}, said="accuracy", value=5)
        journal.close()
        session.publish(store.get(tasks.manifest.key), "run")

    seen = grades.rows(opened(tmp_path / "third", url), tasks.manifest.key)
    assert [row["task"] for row in seen] == ["a", "b"]
