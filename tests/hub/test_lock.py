"""`adapt lock` with the real client of the hub, against a hub that fails in every known way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli import explain
from tests.hub import loopback
from tests.hub.loopback import Hub, always, commit, digest, slow, times
from tests.rules.golden import ROOT

RECIPE = """\
recipe: 1
name: mine
source: {use: hub, dataset: some/rows, task: pairs, columns: {image: image, caption: text}}
base:
  model: some/base
benchmarks: {domain: [holdout]}
"""
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same, pickled",
    "README.md": b"about",
    ".gitattributes": b"",
}
TOKEN = "hf_secretsecretsecretsecretsecret"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback.serving() as hub:
        hub.add("models/some/base", FILES)
        hub.add("datasets/some/rows", {"train.parquet": b"rows"}, 2)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


def environment(folder: Path, hub: Hub, **variables: str) -> dict[str, str]:
    """Return variables for the real client, far from this user's settings and tokens."""
    home = folder.parent / "home"
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_ETAG_TIMEOUT": "5",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **variables,
    }


def adapt(
    folder: Path, hub: Hub, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of adapt."""
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", *words],
        cwd=folder,
        env=environment(folder, hub, **variables),
        capture_output=True,
        text=True,
        timeout=300,
    )


def facts(folder: Path) -> dict[str, str | None]:
    return json.loads((folder / "mine.lock.json").read_text())["facts"]


def test_commits_and_digests_come_from_the_hub_without_a_download(folder: Path, hub: Hub):
    done = adapt(folder, hub, "lock", "mine.yaml")

    assert (done.returncode, done.stderr) == (0, "")
    found = facts(folder)
    assert {name: value for name, value in found.items() if "some/" in name} == {
        "dataset some/rows revision": commit(2),
        "model some/base revision": commit(1),
        "model some/base file config.json": digest("config.json", b"{}"),
        "model some/base file model.safetensors": digest("model.safetensors", b"weights"),
    }
    assert [path for path in hub.asked if not path.startswith("GET api/")] == []


def test_planning_with_a_lock_asks_no_hub(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")
    hub.asked.clear()

    done = adapt(folder, hub, "plan", "mine.yaml", "--frozen", "--json")
    train = next(n for n in json.loads(done.stdout)["nodes"] if n["id"] == "train")
    assert train["params"]["revision"] == commit(1)
    assert hub.asked == []


def test_a_branch_that_the_recipe_names_is_locked_as_its_commit(folder: Path, hub: Hub):
    hub.repos["models/some/base"].branches["v1"] = commit(1)
    hub.add("models/some/base", FILES, 3)
    words = ("mine.yaml", "--set", "base.revision=v1")

    assert adapt(folder, hub, "lock", *words).returncode == 0
    assert facts(folder)["model some/base@v1 revision"] == commit(1)
    planned = adapt(folder, hub, "plan", *words, "--json", "--frozen")
    train = next(n for n in json.loads(planned.stdout)["nodes"] if n["id"] == "train")
    assert train["params"]["revision"] == commit(1)


FAILURES = {
    "not there": ("hub-not-found", "the model `some/base` does not exist"),
    "gated": ("hub-gated", "the model `some/base` is gated"),
    "no such revision": ("hub-no-revision", "the model `some/base` has no revision `v9`"),
    "too many requests": ("hub-unavailable", "it asks for fewer requests (429)"),
    "its own error": ("hub-unavailable", "it answered with status 500"),
    "slow": ("hub-unavailable", "no answer in time"),
    "half an answer": ("hub-unavailable", "the answer broke off"),
    "no JSON": ("hub-unavailable", "the answer is not what a hub says"),
    "no commit": ("hub-unavailable", "the answer is not what a hub says"),
    "an older JSON": ("hub-unavailable", "the answer is not what a hub says"),
}


def break_it(hub: Hub, how: str) -> None:
    faults = {
        "too many requests": lambda h: h.refuse(429, Retry_After="0"),
        "its own error": lambda h: h.refuse(500),
        "slow": slow(2),
        "half an answer": lambda h: h.send(b'{"id": "some/base", "sha": "aa', cut=9),
        "no JSON": lambda h: h.send(b'{"id": "some/base", "sha"'),
        "no commit": lambda h: h.send(b'{"id": "some/base", "sha": "main"}'),
        "an older JSON": lambda h: h.send(b"[]"),
    }
    if how == "not there":
        del hub.repos["models/some/base"]
    elif how == "gated":
        hub.repos["models/some/base"].token = "another"
    elif how in faults:
        hub.faults["api/models/some/base"] = always(faults[how])


@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_is_one_diagnostic_at_its_line_and_leaves_the_old_lock(
    folder: Path, hub: Hub, how: str
):
    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    before = (folder / "mine.lock.json").read_bytes()
    break_it(hub, how)
    more = ["--set", "base.revision=v9"] if how == "no such revision" else []

    done = adapt(folder, hub, "lock", "mine.yaml", *more, HF_HUB_ETAG_TIMEOUT="1", HF_TOKEN=TOKEN)
    code, message = FAILURES[how]
    assert done.returncode == 1
    assert done.stderr.startswith(f"error[{code}]: ")
    assert message in done.stderr
    assert "`some/base`" in done.stderr
    assert done.stderr.count("error[") == 1
    assert "mine.yaml:5:10\n" in done.stderr or more
    assert TOKEN not in done.stdout + done.stderr
    assert (folder / "mine.lock.json").read_bytes() == before


def test_every_failing_name_is_told_at_once(folder: Path, hub: Hub):
    hub.repos.clear()

    done = adapt(folder, hub, "lock", "mine.yaml", "--json")
    found = json.loads(done.stdout)["diagnostics"]
    assert [(item["code"], item["line"]) for item in found] == [
        ("hub-not-found", 3),
        ("hub-not-found", 5),
    ]
    assert not (folder / "mine.lock.json").exists()


def test_what_is_missing_here_and_at_the_hub_is_told_at_once(folder: Path, hub: Hub):
    hub.repos.pop("models/some/base")
    source = "{use: image_folder, path: ./nowhere}"
    text = "\n".join(f"source: {source}" if "use: hub" in x else x for x in RECIPE.split("\n"))
    (folder / "mine.yaml").write_text(text)

    done = adapt(folder, hub, "lock", "mine.yaml", "--json")
    found = json.loads(done.stdout)["diagnostics"]
    assert [item["code"] for item in found] == ["not-found", "hub-not-found"]


def test_a_slip_in_a_locked_name_has_a_nearest_one(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")

    done = adapt(folder, hub, "lock", "mine.yaml", "--set", "base.model=some/bas")
    assert "  help: did you mean `some/base`?\n" in done.stderr


def test_every_failure_has_a_page():
    assert {code for code, _ in FAILURES.values()} | {"hub-offline"} <= set(explain.codes())


def test_a_model_that_was_renamed_is_locked_under_the_name_of_the_recipe(folder: Path, hub: Hub):
    hub.repos["models/some/renamed"] = hub.repos.pop("models/some/base")
    new = {"Location": "/api/models/some/renamed?blobs=true"}
    hub.faults["api/models/some/base"] = always(lambda h: h.send(b"", new, 307))

    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    assert facts(folder)["model some/base revision"] == commit(1)


def test_a_gated_model_says_where_its_terms_are(folder: Path, hub: Hub):
    hub.repos["models/some/base"].token = TOKEN

    without = adapt(folder, hub, "lock", "mine.yaml")
    assert f"accept the terms at {hub.url}/some/base and set HF_TOKEN" in without.stderr
    with_it = adapt(folder, hub, "lock", "mine.yaml", HF_TOKEN=TOKEN)
    assert with_it.returncode == 0
    assert TOKEN not in with_it.stdout + with_it.stderr + (folder / "mine.lock.json").read_text()


def test_a_gated_dataset_says_where_its_terms_are(folder: Path, hub: Hub):
    hub.repos["datasets/some/rows"].token = TOKEN

    done = adapt(folder, hub, "lock", "mine.yaml", HF_TOKEN="hf_of_somebody_else")
    assert f"accept the terms at {hub.url}/datasets/some/rows and set" in done.stderr
    assert "mine.yaml:3:29\n" in done.stderr


def test_a_gated_model_whose_files_answer_slowly_is_not_waited_for(folder: Path, hub: Hub):
    hub.repos["models/some/base"].token = TOKEN
    hub.faults["resolve"] = slow(3)

    done = adapt(folder, hub, "lock", "mine.yaml", HF_HUB_ETAG_TIMEOUT="1", HF_TOKEN=TOKEN)
    assert "what the model `some/base` is: no answer in time" in done.stderr


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(folder: Path, hub: Hub, status: int):
    hub.faults["api/models"] = times(2, lambda h: h.refuse(status, Retry_After="0"))

    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0


@pytest.mark.alone
def test_a_hub_that_wants_a_long_wait_is_not_waited_for(folder: Path, hub: Hub):
    hub.faults["api/models"] = always(lambda h: h.refuse(429, Retry_After="3600"))

    began = time.monotonic()
    done = adapt(folder, hub, "lock", "mine.yaml")
    assert "it asks for fewer requests (429)" in done.stderr
    assert time.monotonic() - began < 20
    assert len([path for path in hub.asked if "models" in path]) == 1


def test_a_busy_hub_is_asked_a_few_times_only(folder: Path, hub: Hub):
    hub.faults["api/models"] = always(lambda h: h.refuse(429, Retry_After="0"))

    adapt(folder, hub, "lock", "mine.yaml")
    assert len([path for path in hub.asked if "models" in path]) == 3


@pytest.mark.parametrize("how", [{"words": ("--offline",)}, {"variables": {"HF_HUB_OFFLINE": "1"}}])
def test_offline_nothing_is_asked(folder: Path, hub: Hub, how: dict):
    words, variables = how.get("words", ()), how.get("variables", {})

    done = adapt(folder, hub, "lock", "mine.yaml", *words, **variables)
    assert done.returncode == 1
    assert done.stderr.count("error[hub-offline]") == 2
    assert hub.asked == []


@pytest.mark.parametrize("variable", ["ADAPT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_the_locked_commits_are_kept(folder: Path, hub: Hub, variable: str):
    adapt(folder, hub, "lock", "mine.yaml")
    before = (folder / "mine.lock.json").read_bytes()
    hub.asked.clear()

    assert adapt(folder, hub, "lock", "mine.yaml", **{variable: "1"}).returncode == 0
    assert (folder / "mine.lock.json").read_bytes() == before
    assert hub.asked == []


def test_offline_a_model_that_is_not_locked_yet_is_told(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")

    done = adapt(folder, hub, "lock", "mine.yaml", "--offline", "--set", "base.model=some/other")
    assert done.returncode == 1
    assert done.stderr.startswith("error[hub-offline]: the hub cannot be asked for the model")
    assert done.stderr.count("error[") == 1


@pytest.mark.alone
def test_control_c_does_not_wait_for_a_silent_hub(folder: Path, hub: Hub):
    hub.faults["api/"] = slow(20)
    with subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "lock", "mine.yaml"],
        cwd=folder,
        env=environment(folder, hub, HF_HUB_ETAG_TIMEOUT="15"),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while len(hub.asked) < 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        said = process.communicate(timeout=20)[1]

    assert time.monotonic() - began < 5
    assert (process.returncode, said) == (130, "interrupted\n")
    assert not (folder / "mine.lock.json").exists()


def test_no_hub_at_all_is_no_connection(folder: Path, hub: Hub):
    done = adapt(folder, hub, "lock", "mine.yaml", HF_ENDPOINT="http://127.0.0.1:9")

    assert "http://127.0.0.1:9 did not say what the model `some/base` is: no connection" in (
        done.stderr
    )


def test_check_tells_that_the_branch_moved(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")
    hub.add("models/some/base", FILES, 3)

    done = adapt(folder, hub, "lock", "mine.yaml", "--check")
    assert done.returncode == 0
    moved = f"model some/base revision: {commit(1)} -> {commit(3)}"
    assert f"newer on the hub, not used: {moved}\n" in done.stdout


def test_a_branch_that_the_recipe_names_drifts_when_it_moves(folder: Path, hub: Hub):
    words = ("lock", "mine.yaml", "--set", "base.revision=main")
    adapt(folder, hub, *words)
    hub.add("models/some/base", FILES, 3)

    done = adapt(folder, hub, *words, "--check")
    assert done.returncode == 5
    moved = f"model some/base@main revision: {commit(1)} -> {commit(3)}"
    assert f"error[lock-drift]: {moved}\n" in done.stderr


def test_check_finds_a_commit_that_has_gone(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")
    hub.add("models/some/base", FILES, 3)
    del hub.repos["models/some/base"].commits[commit(1)]

    done = adapt(folder, hub, "lock", "mine.yaml", "--check")
    assert done.returncode == 5
    assert f"the model `some/base` has no revision `{commit(1)}`" in done.stderr


def test_check_finds_other_weights_under_the_same_commit(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")
    hub.repos["models/some/base"].commits[commit(1)] = {**FILES, "model.safetensors": b"others"}

    done = adapt(folder, hub, "lock", "mine.yaml", "--check")
    assert done.returncode == 5
    assert "error[lock-drift]: model some/base file model.safetensors: sha256:" in done.stderr


def test_locking_again_follows_the_branch(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")
    hub.add("models/some/base", FILES, 3)

    done = adapt(folder, hub, "lock", "mine.yaml")
    assert f"  model some/base revision: {commit(1)} -> {commit(3)}\n" in done.stdout
    assert facts(folder)["model some/base revision"] == commit(3)


def test_an_outage_during_a_check_is_no_drift(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")
    hub.faults["api/"] = always(lambda h: h.refuse(503, Retry_After="0"))

    done = adapt(folder, hub, "lock", "mine.yaml", "--check")
    assert done.returncode == 1
    assert done.stderr.count("error[hub-unavailable]") == 2


def test_a_branch_and_a_commit_of_one_model_are_two_facts(folder: Path, hub: Hub):
    hub.add("models/some/base", FILES, 3)
    writer = f"generator: {{model: some/base, revision: {commit(1)}}}\n"
    (folder / "mine.yaml").write_text(RECIPE + writer)

    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    found = facts(folder)
    assert found["model some/base revision"] == commit(3)
    assert found[f"model some/base@{commit(1)} revision"] == commit(1)
    planned = adapt(folder, hub, "plan", "mine.yaml", "--json", "--frozen")
    nodes = {node["id"]: node for node in json.loads(planned.stdout)["nodes"]}
    assert nodes["train"]["params"]["revision"] == commit(3)
    assert nodes["generate"]["params"]["generator"]["revision"] == commit(1)
    adapt(folder, hub, "lock", "mine.yaml", "--offline")
    assert facts(folder) == found


def test_a_name_of_an_arm_is_told_at_the_arm(folder: Path, hub: Hub):
    arms = "matrix:\n  plain: {}\n  other:\n    base.model: some/typo\n"
    (folder / "mine.yaml").write_text(RECIPE + arms)

    done = adapt(folder, hub, "lock", "mine.yaml")
    assert done.stderr.count("error[") == 1
    assert "  --> mine.yaml:10:17\n" in done.stderr


def test_a_saved_plan_is_frozen_as_its_recipe_is(folder: Path, hub: Hub):
    adapt(folder, hub, "lock", "mine.yaml")
    adapt(folder, hub, "plan", "mine.yaml", "-o", "plan.json")

    assert adapt(folder, hub, "plan", "plan.json", "--frozen").returncode == 0
    done = adapt(folder, hub, "run", "plan.json", "--frozen", MAX_PIXELS="9")
    assert done.returncode == 5
    assert "environment MAX_PIXELS: none -> 9" in done.stderr
