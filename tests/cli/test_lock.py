from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jsonschema_rs
import pytest

from engine import cli, package_data
from engine.cli import compiled, installed, locked, planning
from engine.diagnostics import GateError
from engine.plan.stage import Plan
from engine.runtime.digests import DigestCache
from tests.rules.golden import ROOT

RECIPE = """\
recipe: 1
name: mine
source: {use: image_folder, path: ./pictures}
base: {model: pocket/base}
benchmarks: {domain: [holdout]}
"""
HUB_RECIPE = """\
recipe: 1
name: mine
source: {use: hub, dataset: someone/rows, task: pairs, columns: {image: image, caption: text}}
generator: {model: someone/writer, revision: v1}
filters:
  tasks: [{use: consistency, judge: {model: someone/judge}, prompt: consistency@1}]
base: {model: someone/base}
benchmarks: {domain: [holdout]}
"""
OLD, NEW, JUDGE, ROWS = "a" * 40, "b" * 40, "c" * 40, "d" * 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    folder = tmp_path / "work"
    (folder / "pictures").mkdir(parents=True)
    (folder / "mine.yaml").write_text(RECIPE)
    Image.new("RGB", (8, 8)).save(folder / "pictures" / "a.png")
    (folder / "pictures" / "a.txt").write_text("a picture")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ADAPT_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(folder)
    return folder


def facts(folder: Path) -> dict[str, str | None]:
    return json.loads((folder / "mine.lock.json").read_text())["facts"]


def hub_facts(**commits: str) -> dict[str, str]:
    given = {
        "model someone/base revision": OLD,
        "model someone/writer@v1 revision": NEW,
        "model someone/judge revision": JUDGE,
        "dataset someone/rows revision": ROWS,
    }
    return {**given, **commits}


def plan_of(recipe: Path, *overrides: str) -> Plan:
    return planning.compile_recipe(recipe, overrides, DigestCache(Path("digests")))


def test_a_lock_is_sorted_with_one_fact_a_line_and_follows_its_schema(folder: Path):
    assert cli.main(["lock", "mine.yaml"]) == 0

    text = (folder / "mine.lock.json").read_text()
    rows = [line.strip().rstrip(",") for line in text.splitlines()[3:-2]]
    document = json.loads(text)
    schema = (package_data.folder("schemas") / "lock.schema.json").read_text()
    jsonschema_rs.validator_for(json.loads(schema)).validate(document)
    assert rows == sorted(rows)
    assert len(rows) == len(document["facts"])
    assert {"source collect", "model pocket/base digest", "stage train", "package torch"} <= set(
        document["facts"]
    )


def test_a_lock_says_nothing_of_machine_and_time(folder: Path, tmp_path: Path):
    cli.main(["lock", "mine.yaml"])

    text = (folder / "mine.lock.json").read_text()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text
    cli.main(["lock", "mine.yaml"])
    assert (folder / "mine.lock.json").read_text() == text


def test_what_was_just_locked_is_frozen(folder: Path):
    cli.main(["lock", "mine.yaml"])

    assert cli.main(["plan", "mine.yaml", "--frozen"]) == 0
    assert cli.main(["lock", "mine.yaml", "--check", "--offline"]) == 0


def test_every_drift_is_named_with_old_and_new(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    cli.main(["lock", "mine.yaml"])
    held = facts(folder)
    locked.write(folder / "mine.lock.json", {**held, "package torch": "1.0"})
    (folder / "pictures" / "a.txt").write_text("another caption")
    monkeypatch.setenv("MAX_PIXELS", "65536")
    capsys.readouterr()

    assert cli.main(["plan", "mine.yaml", "--frozen"]) == 5
    said = capsys.readouterr().err
    assert "error[lock-drift]: environment MAX_PIXELS: none -> 65536\n" in said
    assert f"error[lock-drift]: package torch: 1.0 -> {held['package torch']}\n" in said
    assert f"error[lock-drift]: source collect: {held['source collect']} -> " in said
    assert said.count("error[") == 3


def test_a_drift_points_at_its_line_of_the_lock(folder: Path, capsys: pytest.CaptureFixture[str]):
    cli.main(["lock", "mine.yaml"])
    locked.write(folder / "mine.lock.json", {**facts(folder), "python": "3.0"})
    number = (folder / "mine.lock.json").read_text().splitlines().index('  "python": "3.0",') + 1
    capsys.readouterr()

    cli.main(["plan", "mine.yaml", "--frozen"])
    assert f"  --> mine.lock.json:{number}:3\n" in capsys.readouterr().err


def test_a_run_that_is_frozen_runs_nothing_after_a_drift(folder: Path, tmp_path: Path):
    cli.main(["lock", "mine.yaml"])
    locked.write(folder / "mine.lock.json", {**facts(folder), "python": "3.0"})

    assert cli.main(["run", "mine.yaml", "--frozen"]) == 5
    assert not (tmp_path / "store" / "runs").exists()


def test_drifts_are_printed_as_json(folder: Path, capsys: pytest.CaptureFixture[str]):
    cli.main(["lock", "mine.yaml"])
    locked.write(folder / "mine.lock.json", {**facts(folder), "python": "3.0"})
    capsys.readouterr()

    assert cli.main(["plan", "mine.yaml", "--frozen", "--json"]) == 5
    (found,) = json.loads(capsys.readouterr().out)["diagnostics"]
    assert found["code"] == "lock-drift"


def test_without_a_lock_nothing_is_frozen(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["plan", "mine.yaml", "--frozen"]) == 1
    assert "error[no-lock]: there is no lock `mine.lock.json`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"lock": 1,\n<<<<<<< ours\n"facts": {}}', "mine.lock.json:2:1"),
        ('{"lock": 2, "facts": {}}', "mine.lock.json"),
        ('{"lock": 1, "facts": {"python": 3.11}}', "the fact `python` is no text"),
        ("[]", "mine.lock.json"),
    ],
)
def test_a_broken_lock_is_refused_by_every_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, where: str
):
    (folder / "mine.lock.json").write_text(text)

    assert cli.main(["plan", "mine.yaml"]) == 1
    said = capsys.readouterr().err
    assert "error[broken-lock]" in said
    assert where in said


def test_a_broken_lock_is_written_anew(folder: Path):
    (folder / "mine.lock.json").write_text("<<<<<<< ours")

    assert cli.main(["lock", "mine.yaml", "--check"]) == 1
    assert cli.main(["lock", "mine.yaml"]) == 0
    assert cli.main(["plan", "mine.yaml", "--frozen"]) == 0


def test_a_plan_takes_its_revisions_from_the_lock(folder: Path):
    (folder / "mine.yaml").write_text(HUB_RECIPE)
    before = plan_of(folder / "mine.yaml")
    locked.write(folder / "mine.lock.json", hub_facts())

    after = plan_of(folder / "mine.yaml")
    assert after.node("train").params["revision"] == OLD
    assert after.node("generate").params["generator"]["revision"] == NEW  # asked for as v1
    assert after.node("filter").params["filters"][0]["judge"]["revision"] == JUDGE
    assert after.node("collect").params["source"]["revision"] == ROWS
    assert after.node("collect").preimage["pins"]["source"]["revision"] == ROWS
    moved = {node.id for node in after.nodes if node.key != before.node(node.id).key}
    assert moved == {node.id for node in after.nodes}


def test_another_locked_commit_runs_only_what_depends_on_it(folder: Path):
    (folder / "mine.yaml").write_text(HUB_RECIPE)
    locked.write(folder / "mine.lock.json", hub_facts())
    before = plan_of(folder / "mine.yaml")
    locked.write(folder / "mine.lock.json", hub_facts(**{"model someone/base revision": NEW}))

    after = plan_of(folder / "mine.yaml")
    kept = {node.id for node in after.nodes if node.key == before.node(node.id).key}
    assert {"collect", "curate", "generate", "filter", "mix"} <= kept
    assert "train" not in kept


def test_arms_share_their_nodes_under_a_lock(folder: Path):
    arms = "matrix: {a: {}, b: {training.max_steps: 3}}\n"
    (folder / "mine.yaml").write_text(HUB_RECIPE + arms)
    free = plan_of(folder / "mine.yaml")
    locked.write(folder / "mine.lock.json", hub_facts())

    assert [n.id for n in plan_of(folder / "mine.yaml").nodes] == [n.id for n in free.nodes]


def test_a_revision_in_the_recipe_wins_and_is_a_drift(folder: Path):
    (folder / "mine.yaml").write_text(HUB_RECIPE)
    locked.write(folder / "mine.lock.json", hub_facts())
    overrides = (f"base.revision={'e' * 40}",)

    assert plan_of(folder / "mine.yaml", *overrides).node("train").params["revision"] == "e" * 40
    assert f"model someone/base revision: {OLD} -> {'e' * 40}" in _said(folder, *overrides)


def test_a_model_that_came_after_the_lock_makes_it_incomplete(folder: Path):
    (folder / "mine.yaml").write_text(HUB_RECIPE)
    locked.write(folder / "mine.lock.json", hub_facts())

    said = _said(folder, "base.model=someone/other")
    assert "the lock holds no commit of the model `someone/other`" in said
    assert f"model someone/base revision: {OLD} -> none" in said


def _said(folder: Path, *overrides: str) -> list[str]:
    """Return what `--frozen` says of the facts that a hub knows."""
    from engine.cli import frozen
    from engine.cli.planning import Planned

    recipe = folder / "mine.yaml"
    plan = plan_of(recipe, *overrides)
    planned = Planned(plan, recipe, overrides, DigestCache(Path("digests")))
    with pytest.raises(GateError) as caught:
        frozen.refuse_drift(planned, argparse.Namespace(), {}, reads_models=False)
    return [item.message for item in caught.value.diagnostics]


def test_a_kept_plan_notices_a_lock_that_appears_changes_or_goes(folder: Path):
    (folder / "mine.yaml").write_text(HUB_RECIPE)
    before = time.time() - 60
    os.utime(folder / "mine.yaml", (before, before))
    assert _revision() is None

    locked.write(folder / "mine.lock.json", hub_facts())
    assert _revision() == OLD
    assert _revision() == OLD
    locked.write(folder / "mine.lock.json", hub_facts(**{"model someone/base revision": NEW}))
    assert _revision() == NEW
    (folder / "mine.lock.json").unlink()
    assert _revision() is None


def _revision() -> str | None:
    """Return the base's revision in a plan that may have been kept."""
    digests = DigestCache(Path("digests"))
    plans = compiled.CompiledPlans(compiled.default_folder(os.environ))
    plan = plans.plan(
        Path("mine.yaml"),
        (),
        lambda: planning.compile_recipe(Path("mine.yaml"), (), digests),
        lambda: digests.used,
        digests.path,
    )
    return plan.node("train").params["revision"]


def test_a_lock_that_cannot_be_written_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "mine.lock.json").mkdir()

    assert cli.main(["lock", "mine.yaml"]) == 1
    assert "mine.lock.json" in capsys.readouterr().err
    assert [path.name for path in folder.glob(".mine*")] == []


def test_a_lock_written_again_tells_what_moved(folder: Path, capsys: pytest.CaptureFixture[str]):
    cli.main(["lock", "mine.yaml"])
    held = facts(folder)
    locked.write(folder / "mine.lock.json", {**held, "package torch": "1.0"})
    capsys.readouterr()

    assert cli.main(["lock", "mine.yaml"]) == 0
    assert capsys.readouterr().out == (
        f"wrote mine.lock.json: 1 of {len(held)} facts moved\n"
        f"  package torch: 1.0 -> {held['package torch']}\n"
    )
    assert facts(folder) == held


def test_a_difference_of_locks_is_a_difference_of_experiments(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    for name, revision in (("a", OLD), ("b", NEW)):
        (folder / f"{name}.yaml").write_text(HUB_RECIPE)
        held = hub_facts(**{"model someone/base revision": revision})
        locked.write(folder / f"{name}.lock.json", held)

    assert cli.main(["diff", "a.yaml", "b.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "train" in {node["id"] for node in found["reruns"]}
    assert "generate" not in {node["id"] for node in found["reruns"]}


def test_a_lock_of_another_revision_counts_for_that_revision(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    (folder / "mine.yaml").write_text(HUB_RECIPE)
    locked.write(folder / "mine.lock.json", hub_facts())
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True, cwd=folder)

    assert cli.main(["diff", "mine.yaml", "--exit-code"]) == 0
    locked.write(folder / "mine.lock.json", hub_facts(**{"model someone/base revision": NEW}))
    assert cli.main(["diff", "mine.yaml", "--exit-code"]) == 1
    assert OLD in capsys.readouterr().out


def test_vllm_is_a_fact_where_it_is_used_and_lives_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    about = folder / "vllm_env/lib/python3.11/site-packages/vllm-9.9.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9+cpu\n")
    python = folder / "vllm_env/bin/python"
    python.parent.mkdir()
    python.touch()
    monkeypatch.setenv("ADAPT_PYTHON_VLLM", str(python))

    cli.main(["lock", "mine.yaml"])
    assert "package vllm" not in facts(folder)
    cli.main(["lock", "mine.yaml", "--set", "base.backend.use=vllm"])
    assert facts(folder)["package vllm"] == "9.9"
    assert cli.main(["plan", "mine.yaml", "--frozen", "--set", "base.backend.use=vllm"]) == 0
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.10\n")
    assert cli.main(["plan", "mine.yaml", "--frozen", "--set", "base.backend.use=vllm"]) == 5


def test_the_build_of_a_package_is_no_fact(folder: Path):
    about = folder / "env/lib/python3.11/site-packages/torch-2.13.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cu130\n")

    assert installed.version("torch", str(folder / "env/bin/python")) == "2.13.0"
    assert installed.version("no-such-package") is None


def test_lock_and_frozen_import_neither_the_client_nor_anything_heavy(folder: Path):
    cli.main(["lock", "mine.yaml"])
    heavy = ("huggingface_hub", "torch", "transformers", "datasets", "numpy", "PIL")
    code = (
        "import sys\nfrom engine import cli\n"
        "assert cli.main(['plan', 'mine.yaml', '--frozen']) == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_a_fact_of_a_lock_is_never_lost_in_what_it_says(folder: Path):
    odd = {"environment MAX_PIXELS": 'a "b"\\\n', "prompt ü@1": "x", "model a/b file c d": "y"}
    path = Path("odd.lock.json")

    locked.write(path, odd)
    assert locked.facts(Path("odd.yaml")) == odd
    assert len(path.read_text().splitlines()) == 3 + len(odd) + 2
