"""`adapt store` on real stores that fake stages filled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import cli, package_data
from engine.cli import planning
from engine.plan.stage import Plan
from engine.runtime import locks, runs
from engine.runtime.runs import Run
from engine.runtime.store import SEALED_NS, Store
from tests.cli.fake_adapt import command, run_fake
from tests.runtime.fake_stages import PlanBuilder

Call = Callable[..., tuple[int, Any]]


def chain(num_rows: int = 3) -> Plan:
    build = PlanBuilder()
    build.add("count", num_rows=num_rows)
    build.add("double", "count", num_rows=num_rows)
    return build.plan()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def fill(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Plan], Run]:
    recipe = tmp_path / "fake.yaml"
    recipe.write_text("recipe: 1\n")

    def run(plan: Plan) -> Run:
        assert run_fake(plan, recipe, root) == 0
        capsys.readouterr()
        return runs.all_runs(Store(root))[-1]

    return run


@pytest.fixture
def call(root: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str, store: Path = root) -> tuple[int, Any]:
        code = cli.main(["store", *words, "--store", str(store), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def artifacts(root: Path) -> set[str]:
    return {path.parent.name for path in root.glob("artifacts/*/*/manifest.json")}


def keys(plan: Plan) -> set[str]:
    return {node.key for node in plan.nodes}


def flip(path: Path, *, is_silent: bool = False) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    if is_silent:  # as a failing disk does
        os.utime(path, ns=(SEALED_NS, SEALED_NS))


def test_gc_keeps_what_a_run_reaches(fill, call: Call, root: Path):
    fill(chain())
    before = artifacts(root)

    assert call("gc") == (0, {"is_dry_run": False, "freed_bytes": 0, "removed": []})
    assert artifacts(root) == before == keys(chain())


def test_gc_keeps_the_newest_runs_of_each_recipe_and_what_they_share(fill, call: Call, root: Path):
    old, new = fill(chain(3)), fill(chain(4))
    code, found = call("gc", "--keep", "1")

    assert code == 0
    assert not old.path.exists()
    assert new.path.exists()
    assert artifacts(root) == keys(chain(4))
    kinds = sorted(item["kind"] for item in found["removed"])
    assert kinds == ["artifact", "artifact", "index", "index", "run"]
    assert found["freed_bytes"] > 0


def test_a_dry_run_says_the_same_bytes_and_changes_nothing(fill, call: Call, root: Path):
    fill(chain(3))
    fill(chain(4))
    before = sorted(root.rglob("*"))
    _, planned = call("gc", "--keep", "1", "--dry-run")
    assert sorted(path for path in root.rglob("*")) == before
    _, done = call("gc", "--keep", "1")

    assert planned["freed_bytes"] == done["freed_bytes"]
    assert planned["removed"] == done["removed"]


def test_gc_by_age_removes_runs_that_are_older(fill, call: Call, root: Path):
    run = fill(chain())
    facts = run.facts() | {"started_at": time.time() - 3 * 86400}
    (run.path / "run.json").write_text(json.dumps(facts))

    assert call("gc", "--keep", "4d")[1]["removed"] == []
    call("gc", "--keep", "2d")
    assert artifacts(root) == set()


def test_gc_to_a_size_takes_what_was_used_longest_ago(fill, call: Call, root: Path):
    old = fill(chain(3))
    facts = old.facts() | {"started_at": time.time() - 60}
    (old.path / "run.json").write_text(json.dumps(facts))
    fill(chain(4))
    sizes = {
        key: sum(f.stat().st_size for f in (root / "artifacts" / key[:2] / key).iterdir())
        for key in artifacts(root)
    }
    keep = sum(sizes[key] for key in keys(chain(4)))
    call("gc", "--max-size", f"{keep / 1000}KB")

    assert artifacts(root) == keys(chain(4))


def test_gc_keeps_what_a_lock_beside_a_recipe_still_reaches(tmp_path: Path, capsys):
    recipe = tmp_path / "small.yaml"
    shutil.copy(package_data.folder("recipes") / "quickstart.yaml", recipe)
    root = tmp_path / "store"
    planned = planning.requested(str(recipe), (), Store(root)).plan
    made = Store(root)
    for node in planned.nodes[:3]:
        staging = made.staging(node.key)
        (staging / "rows-00000.jsonl").write_text("{}\n")
        made.publish(node, staging, {}, {})
    run = runs.create(made, chain(), {"recipe_path": str(recipe)})
    keys_before = artifacts(root)
    capsys.readouterr()

    (tmp_path / "small.lock.json").write_text(lock_of(recipe, tmp_path))
    capsys.readouterr()
    assert cli.main(["store", "gc", "--store", str(root)]) == 0
    assert artifacts(root) == keys_before
    (tmp_path / "small.lock.json").unlink()
    assert cli.main(["store", "gc", "--store", str(root)]) == 0
    assert artifacts(root) == set()
    assert run.path.exists()


def lock_of(recipe: Path, folder: Path) -> str:
    """Return the lock that `adapt lock` writes."""
    assert cli.main(["lock", str(recipe), "--offline", "--store", str(folder / "other")]) == 0
    return recipe.with_name("small.lock.json").read_text()


def test_gc_removes_what_dead_processes_left(fill, call: Call, root: Path):
    fill(chain())
    (root / "scratch" / ("a" * 64)).mkdir(parents=True)
    (root / "tmp" / f"{'b' * 64}-0a").mkdir(parents=True)
    dead = locks.identity() | {"start": "another"}
    (root / "locks" / f"{'c' * 64}.lock").write_text(locks.sealed(dead))
    alive = locks.identity() | {"host": "elsewhere"}
    (root / "locks" / f"{'9' * 64}.lock").write_text(locks.sealed(alive))
    (root / "realised" / f"{'d' * 64}.json").write_text(json.dumps({"key": "e" * 64}))
    _, found = call("gc")

    assert sorted(i["kind"] for i in found["removed"]) == ["index", "leftover", "lock", "scratch"]
    assert list((root / "scratch").iterdir()) == []


def test_gc_leaves_alone_what_a_living_run_works_on(root: Path, tmp_path: Path, call: Call):
    build = PlanBuilder()
    build.add("count")
    marks = tmp_path / "marks"
    build.add("slow", "count", num_batches=20, batch_s=0.1, marks=str(marks))
    process = subprocess.Popen(command(build.plan(), tmp_path), stdout=subprocess.DEVNULL)
    while not marks.exists():
        time.sleep(0.02)
    assert call("gc", "--keep", "0", "--max-size", "0MB")[0] == 0

    assert process.wait(timeout=60) == 0
    assert artifacts(root) == keys(build.plan())
    assert len(marks.read_text().split()) == 20


@pytest.mark.parametrize("name", ["plan.json", "run.json"])
def test_gc_removes_nothing_while_the_facts_of_a_run_are_damaged(
    fill, call: Call, root: Path, name: str
):
    run = fill(chain(3))
    before = artifacts(root)
    (run.path / name).write_text("{")
    code, found = call("gc", "--keep", "1")

    assert code == 1
    (problem,) = found["diagnostics"]
    assert problem["code"] == "run-damaged"
    assert run.id in problem["message"]
    assert artifacts(root) == before


def test_links_to_one_content_count_once(fill, call: Call, root: Path):
    build = PlanBuilder()
    build.add("count", note="moves the key")
    build.add("double", "count", num_rows=3)
    fill(chain())
    fill(build.plan())  # `double` is linked
    _, found = call("gc", "--keep", "1", "--dry-run")

    rows = Store(root).get(chain().node("double").key).manifest.files
    gone = [root / "artifacts" / item["name"][:2] / item["name"] for item in found["removed"]]
    files = [path for folder in gone if folder.is_dir() for path in folder.rglob("*")]
    size = sum(path.stat().st_size for path in files)
    run, *_ = (item["name"] for item in found["removed"] if item["kind"] == "run")
    size += sum(p.stat().st_size for p in (root / "runs" / run).rglob("*") if p.is_file())
    size += sum(
        (root / "realised" / item["name"]).stat().st_size
        for item in found["removed"]
        if item["kind"] == "index"
    )
    assert found["freed_bytes"] == size - sum(entry.size_bytes for entry in rows)


@pytest.mark.parametrize("flags", [("--keep", "few"), ("--max-size", "large")])
def test_a_limit_that_is_none_is_refused(call: Call, root: Path, flags):
    code, found = call("gc", *flags)

    assert code == 1
    assert found["diagnostics"][0]["code"] == "wrong-flag"


def test_verify_finds_a_sound_store_sound(fill, call: Call):
    fill(chain())
    code, found = call("verify")

    assert code == 0
    assert (found["num_artifacts"], found["num_files"], found["damages"]) == (2, 2, [])


def test_verify_names_each_damaged_file_and_the_next_run_makes_it_anew(
    fill, call: Call, root: Path
):
    run = fill(chain())
    store = Store(root)
    count, double = (store.get(node.key) for node in chain().nodes)
    flip(count.file("rows-00000.jsonl"), is_silent=True)
    double.file("manifest.json").unlink()
    assert store.get(count.manifest.key) is not None  # nothing shows without hashing

    code, found = call("verify")
    told = {(d["key"], d["file"], d["what"], d["used_by"]) for d in found["damages"]}
    key, other = count.manifest.key, double.manifest.key
    assert code == 5
    assert told == {
        (key, "rows-00000.jsonl", "other content of the same size", f"`count` of run {run.id}"),
        (other, "manifest.json", "missing or not what was written", f"`double` of run {run.id}"),
    }
    assert sorted(found["set_aside"]) == sorted((key, other))
    assert artifacts(root) == set()

    fill(chain())
    assert [row["number"] for row in store.get(other).rows("rows")] == [0, 2, 4]
    assert call("verify")[0] == 0


def test_verify_names_damage_also_where_the_plan_of_the_run_is_damaged(
    fill, call: Call, root: Path
):
    run = fill(chain())
    (run.path / "plan.json").write_text("{")
    artifact = Store(root).get(chain().nodes[0].key)
    flip(artifact.file("rows-00000.jsonl"), is_silent=True)
    code, found = call("verify")

    assert code == 5
    assert [item["key"] for item in found["damages"]] == [chain().nodes[0].key]


def test_verify_of_a_run_looks_at_nothing_else(fill, call: Call, root: Path):
    first, second = fill(chain(3)), fill(chain(4))
    flip(Store(root).get(chain(3).node("count").key).file("rows-00000.jsonl"), is_silent=True)

    assert call("verify", second.id)[0] == 0
    assert call("verify", first.id, "--dry-run")[0] == 5
    assert artifacts(root) == keys(chain(3)) | keys(chain(4))  # a dry run moves nothing


def test_an_export_is_a_store_and_comes_back_whole(
    fill, call: Call, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run = fill(chain())
    code, found = call("export", run.id, str(tmp_path / "out"))
    assert (code, len(found["new"])) == (0, 2)
    texts = [p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert not [text for text in texts if str(tmp_path) in text or "hf_secret" in text]
    assert not [text for text in texts if os.uname().nodename in text]
    new = tmp_path / "new"
    assert call("verify", store=tmp_path / "out")[0] == 0
    assert call("import", str(tmp_path / "out"), store=new)[1]["num_bytes"] == found["num_bytes"]
    assert artifacts(new) == keys(chain())
    assert call("import", str(tmp_path / "out"), store=new)[1]["new"] == []
    assert {node.state for node in runs.newest(Store(new)).status().nodes.values()} == {"ran"}


def test_an_export_that_was_cut_short_goes_on(fill, call: Call, root: Path, tmp_path: Path):
    run = fill(chain())
    call("export", run.id, str(tmp_path / "out"))
    shutil.rmtree(Store(tmp_path / "out").get(chain().node("double").key).path)

    code, found = call("export", run.id, str(tmp_path / "out"))
    assert (code, len(found["new"]), len(found["known"])) == (0, 1, 1)


def test_an_export_never_lands_among_other_things(fill, call: Call, tmp_path: Path):
    run = fill(chain())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")

    code, found = call("export", run.id, str(tmp_path / "home"))
    assert (code, found["diagnostics"][0]["code"]) == (1, "not-exportable")


def test_a_run_that_is_not_whole_is_not_exported(fill, call: Call, root: Path, tmp_path: Path):
    run = fill(chain())
    shutil.rmtree(Store(root).get(chain().node("count").key).path)
    code, found = call("export", run.id, str(tmp_path / "out"))

    assert code == 1
    assert "`count` is not in the store" in found["diagnostics"][0]["message"]


def _climb(out: Path) -> None:
    index = json.loads((out / "adapt-export.json").read_text())
    index["run"] = "../../evil"
    (out / "adapt-export.json").write_text(json.dumps(index))


def _flip_rows(out: Path) -> None:
    flip(next(out.rglob("rows-00000.jsonl")), is_silent=True)


def _flip_manifest(out: Path) -> None:
    flip(next(out.rglob("manifest.json")))


def _link(out: Path) -> None:
    path = next(out.rglob("rows-00000.jsonl"))
    path.unlink()
    path.symlink_to("/etc/hostname")


def _link_events(out: Path) -> None:
    path = next(out.glob("runs/*/events.jsonl"))
    path.unlink()
    path.symlink_to("/etc/hostname")


def _link_shelf(out: Path) -> None:
    shelf = next((out / "artifacts").iterdir())
    moved = out.parent / "elsewhere"
    shelf.rename(moved)
    shelf.symlink_to(moved)


def _rename(out: Path) -> None:
    index = json.loads((out / "adapt-export.json").read_text())
    old = index["keys"][0]
    new = "f" * 64
    index["keys"][0] = new
    (out / "artifacts" / "ff").mkdir()
    (out / "artifacts" / old[:2] / old).rename(out / "artifacts" / "ff" / new)
    (out / "adapt-export.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "spoil", [_climb, _flip_rows, _flip_manifest, _link, _link_events, _link_shelf, _rename]
)
def test_an_export_that_was_changed_is_refused(
    fill, call: Call, tmp_path: Path, spoil: Callable[[Path], None]
):
    run = fill(chain())
    call("export", run.id, str(tmp_path / "out"))
    spoil(tmp_path / "out")
    code, found = call("import", str(tmp_path / "out"), store=tmp_path / "new")

    assert (code, found["diagnostics"][0]["code"]) == (1, "not-importable")
    assert list((tmp_path / "new").glob("runs/*")) == []
