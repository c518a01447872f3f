from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest

from engine import package_data
from engine.plan.stage import Node
from engine.runtime import locks
from engine.runtime.locks import KeyLock
from engine.runtime.store import SEALED_NS, Store
from tests.runtime.fake_stages import PlanBuilder


def node(**params: object) -> Node:
    build = PlanBuilder()
    build.add("count", **params)
    return build.nodes[0]


def publish(store: Store, made: Node, text: str = "hello"):
    staging = store.staging(made.key)
    (staging / "model").mkdir()
    (staging / "model" / "weights.txt").write_text(text)
    return store.publish(made, staging, {"rows": 1}, {})


def test_what_was_published_is_found_with_its_manifest(tmp_path: Path):
    store = Store(tmp_path)
    publish(store, node())
    artifact = store.get(node().key)

    assert artifact.file("model/weights.txt").read_text() == "hello"
    assert artifact.manifest.preimage == node().preimage
    assert [entry.name for entry in artifact.manifest.files] == ["model/weights.txt"]
    schema = json.loads((package_data.folder("schemas") / "manifest.schema.json").read_text())
    jsonschema_rs.validate(schema, artifact.json("manifest.json"))


def test_asking_a_store_writes_nothing(tmp_path: Path):
    store = Store(tmp_path / "store")

    assert store.get(node().key) is None
    assert list(store.manifests()) == []
    assert not store.root.exists()


def test_published_files_are_read_only(tmp_path: Path):
    artifact = publish(Store(tmp_path), node())

    for name in ("model/weights.txt", "manifest.json"):
        assert stat.S_IMODE(artifact.file(name).stat().st_mode) == 0o444


def test_what_a_dead_writer_left_is_no_artifact_and_is_cleared(tmp_path: Path):
    store = Store(tmp_path)
    dead = store.staging(node().key)
    (dead / "half.txt").write_text("half")

    assert store.get(node().key) is None
    publish(store, node())
    assert not dead.exists()


def test_an_entry_that_lost_a_file_counts_as_gone_and_can_be_made_again(tmp_path: Path):
    store = Store(tmp_path)
    publish(store, node()).file("model/weights.txt").unlink()

    assert store.get(node().key) is None
    assert publish(store, node()).file("model/weights.txt").read_text() == "hello"


@pytest.mark.parametrize("name", ["model/weights.txt", "manifest.json"])
def test_an_entry_with_any_byte_changed_counts_as_gone_and_can_be_made_again(
    tmp_path: Path, name: str
):
    store = Store(tmp_path)
    path = publish(store, node()).file(name)
    content = path.read_bytes()
    path.chmod(0o644)
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert store.get(node().key) is None
    publish(store, node())

    assert store.get(node().key).file("model/weights.txt").read_text() == "hello"


def test_a_file_that_was_touched_and_not_changed_is_sealed_again(tmp_path: Path):
    store = Store(tmp_path)
    path = publish(store, node()).file("model/weights.txt")
    os.utime(path)

    assert store.get(node().key) is not None
    assert path.stat().st_mtime_ns == SEALED_NS


def test_deleting_an_entry_is_safe(tmp_path: Path):
    store = Store(tmp_path)
    shutil.rmtree(publish(store, node()).path)

    assert store.get(node().key) is None
    assert store.link(node(), {}) is None
    publish(store, node())
    assert store.get(node().key) is not None


def test_a_linked_entry_outlives_the_one_it_was_linked_from(tmp_path: Path):
    store = Store(tmp_path)
    original = publish(store, node())
    # A realised key leaves out the producers' keys, so two nodes with equal inputs can share it.
    build = PlanBuilder()
    upstream = [node(note="a"), node(note="b")]
    artifacts = [publish(store, made) for made in upstream]
    build.nodes = list(upstream)
    users = []
    for made in upstream:
        build = PlanBuilder()
        build.nodes = [made]
        build.add("double", "count")
        users.append(build.nodes[1])
    publish_with = {"rows": {"count": artifacts[0]}}
    staging = store.staging(users[0].key)
    (staging / "out.txt").write_text("result")
    first = store.publish(users[0], staging, {}, publish_with)

    linked = store.link(users[1], {"rows": {"count": artifacts[1]}})
    shutil.rmtree(first.path)

    assert original.manifest.content_digest == artifacts[0].manifest.content_digest
    assert linked.file("out.txt").read_text() == "result"
    assert linked.manifest.key == users[1].key
    assert linked.manifest.content_digest == first.manifest.content_digest


def test_an_entry_that_is_there_is_never_linked_over(tmp_path: Path):
    store = Store(tmp_path)
    made = publish(store, node())
    inode = made.path.stat().st_ino

    assert store.link(node(), {}) is None
    assert made.path.stat().st_ino == inode


def test_scratch_is_kept_until_its_node_is_published(tmp_path: Path):
    store = Store(tmp_path)
    (store.scratch(node().key) / "batch-0.jsonl").write_text("{}")

    assert [path.name for path in store.scratch(node().key).iterdir()] == ["batch-0.jsonl"]
    publish(store, node())
    assert not (tmp_path / "scratch" / node().key).exists()


def test_a_symlink_in_an_artifact_is_refused(tmp_path: Path):
    store = Store(tmp_path)
    staging = store.staging(node().key)
    (staging / "link").symlink_to(tmp_path)

    with pytest.raises(ValueError, match="`link` is not a plain file"):
        store.publish(node(), staging, {}, {})


def test_a_lock_is_held_until_it_is_released(tmp_path: Path):
    store = Store(tmp_path)
    first, second = store.lock("k"), store.lock("k")

    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()


def test_the_lock_of_a_dead_process_is_broken(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from engine.runtime.store import Store;"
        "assert Store(Path(sys.argv[1])).lock('k').try_acquire()"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)

    assert (tmp_path / "locks" / "k.lock").exists()
    assert Store(tmp_path).lock("k").try_acquire()


def test_a_lock_whose_process_id_was_given_to_another_process_is_broken(tmp_path: Path):
    store = Store(tmp_path)
    store.lock("k").try_acquire()
    path = tmp_path / "locks" / "k.lock"
    path.write_text(locks.sealed(locks.identity() | {"start": "another"}))

    assert store.lock("k").try_acquire()


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_lock_of_a_holder_out_of_sight_is_broken_after_a_minute_without_a_touch(
    tmp_path: Path, field: str
):
    now = [0.0]
    KeyLock(tmp_path, "k").try_acquire()
    path = tmp_path / "k.lock"
    path.write_text(locks.sealed(locks.identity() | {field: "another"}))
    waiting = KeyLock(tmp_path, "k", lambda: now[0])

    assert not waiting.try_acquire()
    now[0] = 59.0
    assert not waiting.try_acquire()
    os.utime(path, (0, 0))  # a touch, by a clock that was set back
    now[0] = 61.0
    assert not waiting.try_acquire()
    now[0] = 122.0
    assert waiting.try_acquire()


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_damaged_lock_is_nobodys_however_far_away_its_holder_seems(tmp_path: Path, field: str):
    KeyLock(tmp_path, "k").try_acquire()
    path = tmp_path / "k.lock"
    path.write_text(path.read_text().replace(locks.identity()[field], "damaged"))

    assert KeyLock(tmp_path, "k").try_acquire()


def test_a_process_that_lost_its_lock_knows(tmp_path: Path):
    lock = KeyLock(tmp_path, "k")
    lock.try_acquire()
    assert lock.is_ours()
    path = tmp_path / "k.lock"
    path.write_text(locks.sealed(locks.identity() | {"pid": 1}))

    assert not lock.is_ours()


def test_a_crash_at_any_file_operation_leaves_no_entry_or_a_whole_one(tmp_path: Path):
    """Kill a publishing process at the n-th system-level write, for every n until one survives."""
    script = tmp_path / "crash.py"
    script.write_text(CRASH)
    for number in range(1, 100):
        root = tmp_path / str(number)
        done = subprocess.run([sys.executable, script, root, str(number)], check=False)
        artifact = Store(root).get(node().key)
        if artifact is not None:
            assert artifact.file("model/weights.txt").read_text() == "hello"
        publish(Store(root), node())
        assert Store(root).get(node().key) is not None
        if done.returncode == 0:
            break
    assert 8 < number < 99


CRASH = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from tests.runtime.test_store import Store, node, publish
left = int(sys.argv[2])
def die_at_last(event, args):
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir"):
        path = str(args[0])
        if sys.argv[1] in path:
            left -= 1
            if left == 0:
                os._exit(9)
sys.addaudithook(die_at_last)
publish(Store(Path(sys.argv[1])), node())
"""


def test_files_in_nested_folders_are_published_in_the_order_of_their_parts(tmp_path: Path):
    store = Store(tmp_path)
    staging = store.staging(node().key)
    names = ("a/b/one", "a.c", "a/two", "z")
    for name in names:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_text(name)
    artifact = store.publish(node(), staging, {}, {})

    assert [entry.name for entry in artifact.manifest.files] == ["a/b/one", "a/two", "a.c", "z"]
    assert store.get(node().key) == artifact


def test_an_artifact_of_many_files_is_published_whole(tmp_path: Path):
    store = Store(tmp_path)
    staging = store.staging(node().key)
    for number in range(1100):
        (staging / f"{number:04d}").write_text(str(number))
    artifact = store.publish(node(), staging, {}, {})

    entries = artifact.manifest.files
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(1100)]
    assert [entry.sha256 for entry in entries] == digests
    assert {entry.size_bytes for entry in entries} == {1, 2, 3, 4}
    assert all(not artifact.file(entry.name).stat().st_mode & 0o222 for entry in entries)
