"""A miniature of the quickstart, through the command line, as a new user would run it."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import package_data
from engine.runtime.store import Store
from tests.cli.review_client import reviewing

SMALL = (
    "source.num_rows=48",
    "generator.tune.seed_tasks.num_rows=24",
    "training.num_train_epochs=1",
    "benchmarks.max_items=24",
)
STAGES = {
    "collect",
    "curate",
    "seeds",
    "synthesizer",
    "generate",
    "filter",
    "mix",
    "train",
    "report",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user's own, with a recipe made by `adapt init`."""
    folder = tmp_path_factory.mktemp("user")
    made = adapt(folder, "init", "mine", "--from", "quickstart")
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def first_run(folder: Path) -> subprocess.CompletedProcess[str]:
    done = adapt(folder, "run", "mine.yaml", *small())
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_run_goes_through_all_stages(folder: Path, first_run):
    nodes = summary(folder)["nodes"]

    assert {node["id"].split("/")[0].split(".")[0] for node in nodes} == STAGES | {"evaluate"}
    assert {node["state"] for node in nodes} == {"ran"}


def test_the_run_shows_funnel_scores_and_report(first_run):
    for text in ("pairs", "kept", "trained", "pocket_cells", "report.html"):
        assert text in first_run.stdout


def test_the_funnel_only_narrows(folder: Path, first_run):
    (arm,) = summary(folder)["arms"]
    funnel = arm["funnel"]

    assert funnel["pairs"] >= funnel["generated"] >= funnel["parsed"] >= funnel["kept"] > 0
    assert funnel["trained"] > 0


def test_the_same_command_again_is_cached_and_takes_half_a_second_of_cpu(folder: Path, first_run):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = adapt(folder, "run", "mine.yaml", *small())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert again.returncode == 0, again.stdout + again.stderr
    assert "cached" in again.stdout
    assert {node["state"] for node in summary(folder)["nodes"]} == {"cached"}
    assert cpu_s <= 0.5


def test_its_tasks_are_there_to_be_graded(folder: Path, first_run):
    with reviewing(Store(folder / ".adapt"), "--num", "4") as client:
        rows = client.get("start").json["rows"]
        picture = client.get("picture/0")

    assert rows
    texts = ("caption", "instruction", "informative", "precise", "joined")
    assert all(row[name] for row in rows for name in texts)
    assert picture.headers["content-type"] == "image/png"


def test_another_domain_shares_the_tuned_synthesizer(folder: Path, first_run):
    other = ("source.seed=7", "benchmarks.domain=[pocket_shapes]", "benchmarks.general=[]")
    changed = [word for value in other for word in ("--set", value)]
    done = adapt(folder, "run", "mine.yaml", *small(), *changed, "--only", "synthesizer")
    status = adapt(folder, "status", "--json").stdout
    state = {node["id"]: node["state"] for node in json.loads(status)["nodes"]}

    assert done.returncode == 0, done.stdout + done.stderr
    assert (state["seeds"], state["synthesizer"]) == ("ran", "linked")


def test_training_that_does_nothing_reports_no_gain(folder: Path, first_run):
    done = adapt(folder, "run", "mine.yaml", *small(), "--set", "training.max_steps=0")
    scores = summary(folder)["arms"][0]["scores"]

    assert done.returncode == 0, done.stdout + done.stderr
    assert {score["difference"] for score in scores} == {0.0}
    assert all(score["ci_low"] <= 0.0 <= score["ci_high"] for score in scores)


def test_a_recipe_with_mistakes_shows_them_all_and_writes_nothing(tmp_path: Path):
    shutil.copy(package_data.folder("recipes") / "quickstart.yaml", tmp_path / "bad.yaml")
    text = (tmp_path / "bad.yaml").read_text("utf-8")
    text = text.replace("seed: 42", "sead: 42").replace("warmup_ratio: 0.03", "warmup_ratio: many")
    (tmp_path / "bad.yaml").write_text(text, "utf-8")
    done = adapt(tmp_path, "run", "bad.yaml")

    assert done.returncode == 1
    assert "`sead`" in done.stderr
    assert "warmup_ratio" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_ctrl_c_keeps_finished_stages_and_the_next_run_goes_on(folder: Path, tmp_path: Path):
    store = tmp_path / "store"
    arguments = ("run", "mine.yaml", *small(), "--store", str(store))
    process = subprocess.Popen(
        command(*arguments), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_for(lambda: len(list(store.glob("artifacts/*/*/manifest.json"))) >= 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    finished = set(store.glob("artifacts/*/*/manifest.json"))

    assert process.returncode == 130, output
    assert finished
    assert "curate" in adapt(folder, "status", "--store", str(store)).stdout


def test_a_missing_image_folder_names_the_recipe_line(tmp_path: Path):
    adapt(tmp_path, "init", "mine", "--from", "quickstart")
    path = tmp_path / "mine.yaml"
    lines = path.read_text("utf-8").splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("source:"))
    lines[number] = "source: {use: image_folder, path: ./nowhere}"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    done = adapt(tmp_path, "run", "mine.yaml")

    assert done.returncode == 1
    assert f"mine.yaml:{number + 1}:" in done.stderr
    assert "nowhere" in done.stderr


def small() -> list[str]:
    return [word for value in SMALL for word in ("--set", value)]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "engine.cli", *words]


def adapt(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, timeout=600)


def summary(folder: Path) -> dict:
    done = adapt(folder, "report", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for(is_true, timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
