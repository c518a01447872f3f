from __future__ import annotations

import shutil
from pathlib import Path

from engine.plan import diff, keys
from engine.plan.stage import Node
from engine.runtime import preimages
from engine.runtime.store import Store


def node(stage: str, number: int, rate: float = 0.1) -> Node:
    preimage = {
        "stage": stage,
        "version": 1,
        "params": {"rate": rate, "name": "café"},
        "inputs": {"rows": {"rows": keys.text_digest(str(number))}},
    }
    return Node(stage, stage, {}, {}, keys.digest(preimage), preimage, 0, {}, {})


def filled(root: Path, num: int) -> Store:
    store = Store(root)
    for number in range(num):
        one = node("mix" if number % 2 else "train", number, rate=number % 5)
        store.publish(one, store.staging(one.key), {}, {})
    return store


def lines(store: Store) -> list[bytes]:
    path = store.cache / preimages.NAME
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def test_the_nearest_is_the_one_that_all_manifests_say(tmp_path: Path):
    store = filled(tmp_path, 100)
    wanted = [node("mix", 7, rate=3), node("mix", -1, rate=3), node("mix", -1, rate=99)]
    for _ in range(2):  # without a file, and with one
        stored = preimages.by_stage(store, ["mix", "judge"])
        for new in wanted:
            found = stored["mix"].nearest(new.preimage)
            same = (m.preimage for m in store.manifests() if m.stage == "mix")
            best = diff.nearest(new.preimage, same)
            assert len(diff.changes(found, new.preimage)) == len(diff.changes(best, new.preimage))
        assert stored["judge"].nearest(wanted[0].preimage) is None
    assert len(lines(store)) == 100


def test_few_artifacts_are_not_worth_a_file(tmp_path: Path):
    store = filled(tmp_path, 3)

    assert len(preimages.by_stage(store, ["mix"])["mix"].lines) == 1
    assert lines(store) == []


def test_what_was_published_since_is_found(tmp_path: Path):
    store = filled(tmp_path, 80)
    preimages.by_stage(store, ["mix"])
    new = node("mix", 1000, rate=77)
    store.publish(new, store.staging(new.key), {}, {})

    assert preimages.by_stage(store, ["mix"])["mix"].nearest(new.preimage) == new.preimage


def test_what_has_gone_from_the_store_is_no_reason(tmp_path: Path):
    store = filled(tmp_path, 80)
    preimages.by_stage(store, ["mix"])
    shutil.rmtree(store.root / "artifacts")

    assert preimages.by_stage(store, ["mix"])["mix"].nearest(node("mix", 1).preimage) is None
    assert lines(store) == []


def test_damaged_and_torn_lines_are_read_anew_from_the_manifests(tmp_path: Path):
    store = filled(tmp_path, 80)
    whole = preimages.by_stage(store, ["mix", "train"])
    path = store.cache / preimages.NAME
    text = path.read_bytes()
    path.write_bytes(b"\xff" * 40 + text[40:-100])
    again = preimages.by_stage(store, ["mix", "train"])

    for stage in ("mix", "train"):
        assert sorted(again[stage].lines) == sorted(whole[stage].lines)


def test_a_damaged_value_does_not_stop_a_plan(tmp_path: Path):
    store = filled(tmp_path, 80)
    preimages.by_stage(store, ["mix"])
    path = store.cache / preimages.NAME
    path.write_bytes(path.read_bytes().replace(b'"rate"', b'"rate', 1))

    assert preimages.by_stage(store, ["mix"])["mix"].nearest(node("mix", -1, rate=0.5).preimage)


def test_a_store_that_cannot_be_written_is_read(tmp_path: Path):
    store = filled(tmp_path, 80)
    store.cache.write_text("a file where the folder was")

    assert len(preimages.by_stage(store, ["mix"])["mix"].lines) == 40
