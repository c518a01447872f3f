"""What a recipe says of a hub and the hub does not: told at its line, with what there is instead.

The clients are the real `datasets`, `transformers` and `huggingface_hub`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hub import loopback
from tests.hub.loopback import Hub, always, commit
from tests.hub.test_lock import TOKEN, adapt, environment
from tests.models import tiny

CARD = b"""\
---
configs:
- config_name: SLAKE
  data_files: [{split: test, path: slake/test.parquet}, {split: train, path: slake/train.parquet}]
- config_name: PathVQA
  data_files: [{split: test, path: slake/test.parquet}]
---
"""
TOLD_CARD = b"""\
---
dataset_info:
  features: [{name: image, dtype: image}, {name: text, dtype: string}]
  splits: [{name: train, num_bytes: 9, num_examples: 3}]
---
"""
OLD, LOST = commit(1), commit(99)

RECIPE = """\
recipe: 1
name: mine
source:
  use: hub
  dataset: some/pairs
  columns: {image: image, caption: txt}
base: {model: pocket/base}
benchmarks:
  domain: [config, split]
"""
BENCHMARK = """\
description: Some questions.
source:
  use: hub
  dataset: some/bench
  config: SLAKE
  split: test
  task: questions
  columns: {question: input, answer: label}
prompt: bare@1
metric: open
max_new_tokens: 8
licence: CC-BY-4.0
paper: none
"""

READ = """\
import json, pathlib, sys
from engine import plugin
from engine.diagnostics import StageError
from engine.runtime import retries
from engine.sources import SourceContext

hub = plugin.load("sources", "hub")
for name, settings in json.load(sys.stdin).items():
    is_offline = settings.pop("is_offline", False)
    context = SourceContext(locate=pathlib.Path, is_offline=is_offline, seed=0)
    try:
        rows = list(hub.rows(plugin.bind(hub.params, settings), context, None))
        found = {"rows": len(rows)}
    except StageError as error:
        found = {"code": error.code, "about": error.about, "message": str(error)}
        found |= {"hint": error.hint, "kind": retries.kind_of(error)}
    except Exception as error:
        found = {"error": repr(error), "kind": retries.kind_of(error)}
    print(json.dumps({name: found}), flush=True)
"""

# `datasets` itself tries for 23 seconds before it gives up.
LOST_LINE = """\
from engine import hub
from engine.runtime import retries

error = hub.refusal("dataset", "some/bench", None)
print(error.code, retries.kind_of(error))
"""


def table(folder: Path, **columns: list[Any]) -> bytes:
    """Return a Parquet file with pictures, no two alike, and further columns."""
    import datasets

    kinds = {name: datasets.Value("string") for name in columns}
    features = datasets.Features({"image": datasets.Image(), **kinds})
    num_rows = len(next(iter(columns.values())))
    sizes = [(64 + number, 64) for number in range(num_rows)]
    pictures = [{"bytes": tiny.picture(size=size), "path": None} for size in sizes]
    made = datasets.Dataset.from_dict({"image": pictures, **columns}, features=features)
    made.to_parquet(folder / "rows.parquet")
    return (folder / "rows.parquet").read_bytes()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return table(tmp_path_factory.mktemp("pairs"), text=["one", "two", "three"])


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("questions")
    return table(folder, input=["what?", "why?"], label=["this", "that"])


@contextmanager
def filled(pairs: bytes, questions: bytes) -> Iterator[Hub]:
    """Serve data sets of every kind."""
    with loopback.serving() as hub:
        hub.add("datasets/some/pairs", {"train.parquet": pairs})
        files = {"README.md": CARD, "slake/test.parquet": questions}
        hub.add("datasets/some/bench", {**files, "slake/train.parquet": questions})
        hub.add("datasets/some/told", {"README.md": TOLD_CARD, "train.parquet": b"never read"})
        gated = {"README.md": b"about", "train.parquet": pairs}
        hub.add("datasets/some/gated", gated, token=TOKEN)
        for name in ("busy", "moved"):
            hub.add(f"datasets/some/{name}", {"train.parquet": pairs})
        hub.faults["some/busy"] = always(lambda h: h.refuse(503, Retry_After="0"))
        yield hub


@pytest.fixture
def hub(pairs: bytes, questions: bytes) -> Iterator[Hub]:
    with filled(pairs, questions) as hub:
        yield hub


def read(hub: Hub, folder: Path, cases: dict[str, Any], **variables: str) -> dict[str, Any]:
    """Read data sets in a process of its own, as a worker does; return what came of each."""
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps(cases),
        env=environment(folder / "work", hub, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert TOKEN not in done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(cases), done.stderr
    return {name: told for one in found for name, told in one.items()}


def test_what_is_not_there_is_told_with_what_is(hub: Hub, tmp_path: Path):
    bench = {"dataset": "some/bench", "task": "questions"}
    bench |= {"columns": {"question": "input", "answer": "label"}}
    found = read(
        hub,
        tmp_path,
        {
            "column": {"dataset": "some/pairs", "columns": {"caption": "txt"}},
            "told column": {"dataset": "some/told", "columns": {"caption": "txt"}},
            "config": {**bench, "config": "SLACK"},
            "no config": bench,
            "split": {**bench, "config": "SLAKE", "split": "tset[:1]"},
            "well": {**bench, "config": "SLAKE", "split": "test[:1]"},
            "name": {"dataset": "some/pears"},
            "gated": {"dataset": "some/gated", "columns": {"caption": "text"}},
            "revision": {"dataset": "some/moved", "revision": "v9"},
        },
        HF_TOKEN="hf_of_somebody_else",
    )

    assert found.pop("well") == {"rows": 1}
    told = {name: (one["code"], tuple(one["about"]), one["message"]) for name, one in found.items()}
    caption, has = ("columns", "caption"), "it has `image`, `text`"
    assert told == {
        "column": (
            "unknown-column",
            caption,
            f"the dataset `some/pairs` has no column `txt`; {has}",
        ),
        "told column": (
            "unknown-column",
            caption,
            f"the dataset `some/told` has no column `txt`; {has}",
        ),
        "config": (
            "unknown-config",
            ("config",),
            "the dataset `some/bench` has no config `SLACK`; it has `SLAKE`, `PathVQA`",
        ),
        "no config": (
            "unknown-config",
            ("config",),
            "the dataset `some/bench` has several configs, and none is named; "
            "it has `SLAKE`, `PathVQA`",
        ),
        "split": (
            "unknown-split",
            ("split",),
            "the dataset `some/bench` has no split `tset`; it has `test`, `train`",
        ),
        "name": (
            "hub-not-found",
            ("dataset",),
            f"the dataset `some/pears` does not exist at {hub.url}, or is private",
        ),
        "gated": (
            "hub-gated",
            ("dataset",),
            "the dataset `some/gated` is gated, and you have no access to it",
        ),
        "revision": (
            "hub-no-revision",
            ("revision",),
            "the dataset `some/moved` has no revision `v9`",
        ),
    }
    assert {one["kind"] for one in found.values()} == {None}, "they would only be told again"
    assert found["split"]["hint"] == "did you mean `test`?"
    page = f"{hub.url}/datasets/some/gated"
    assert found["gated"]["hint"] == (
        f"accept the terms at {page} and set HF_TOKEN to a token of that account"
    )
    assert f"its newest commit is `{OLD}`" in found["revision"]["hint"]
    assert "GET datasets/some/told/resolve" not in "\n".join(
        one for one in hub.asked if one.endswith(".parquet")
    ), "columns that the card tells are looked at before a download"


@pytest.fixture(scope="module")
def further(
    tmp_path_factory: pytest.TempPathFactory, pairs: bytes, questions: bytes
) -> dict[str, Any]:
    """Read what is busy, gated or cached, one after the other in one process."""
    rows = {"dataset": "some/pairs", "columns": {"caption": "text"}}
    cases = {
        "busy": {"dataset": "some/busy"},
        "gated": {"dataset": "some/gated", "columns": {"caption": "text"}},
        "first": rows,
        "lost": {**rows, "revision": LOST},
        "cached": {**rows, "revision": OLD, "is_offline": True},
        "offline": {**rows, "revision": LOST, "is_offline": True},
    }
    with filled(pairs, questions) as hub:
        return read(hub, tmp_path_factory.mktemp("further"), cases, HF_TOKEN=TOKEN)


def test_a_gated_set_is_read_with_the_token_of_one_who_may(further: dict[str, Any]):
    assert further["gated"] == {"rows": 3}


def test_a_busy_hub_is_asked_again(further: dict[str, Any]):
    assert (further["busy"]["code"], further["busy"]["kind"]) == ("hub-unavailable", "network")


def test_another_commit_in_the_cache_is_not_taken_for_the_one_that_was_asked(
    further: dict[str, Any],
):
    lost, offline = further["lost"], further["offline"]

    assert (further["first"], further["cached"]) == ({"rows": 3}, {"rows": 3})
    assert (lost["code"], lost["about"]) == ("hub-no-revision", ["revision"])
    assert offline["kind"] is None
    assert offline["message"] == (
        f"the local cache holds the dataset `some/pairs` at another commit than `{LOST}`"
    )


def test_a_line_that_is_lost_is_tried_again(hub: Hub, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", LOST_LINE],
        env=environment(tmp_path / "work", hub, HF_ENDPOINT="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.split() == ["hub-unavailable", "network"], done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "mine.yaml").write_text(RECIPE)
    files = {"config": ("SLAKE", "SLACK"), "split": ("test\n", "tset\n"), "well": ("", "")}
    for name, (right, wrong) in files.items():
        text = BENCHMARK.replace(right, wrong) if right else BENCHMARK
        (folder / "benchmarks" / f"{name}.yaml").write_text(text)
    return folder


def errors(text: str) -> dict[str, str]:
    """Return the errors of a run by code, each as printed."""
    found = [part for part in text.split("\n\n") if part.lstrip().startswith("error[")]
    return {part.partition("[")[2].partition("]")[0]: part.strip() for part in found}


@pytest.mark.parametrize("words", [["run"], ["rehearse", "--with-data", "2"]])
def test_a_run_and_a_rehearsal_tell_each_at_its_line(hub: Hub, folder: Path, words: list[str]):
    done = adapt(folder, hub, *words, "mine.yaml", "--quiet")
    found = errors(done.stderr)

    assert done.returncode == 3
    assert found["unknown-column"].splitlines()[:5] == [
        "error[unknown-column]: `collect` failed: the dataset `some/pairs` has no column `txt`; "
        "it has `image`, `text`",
        "  --> mine.yaml:6:36",
        "    6 |   columns: {image: image, caption: txt}",
        "      |                                    ^",
        "  help: if `text` is meant, say so: columns: {caption: text}",
    ]
    assert found["unknown-config"].splitlines()[:6] == [
        "error[unknown-config]: `collect/config` failed: the dataset `some/bench` has no config "
        "`SLACK`; it has `SLAKE`, `PathVQA`",
        "  --> benchmarks/config.yaml:5:11",
        "    5 |   config: SLACK",
        "      |           ^",
        "  note: mine.yaml:9:12 names this benchmark",
        "  help: did you mean `SLAKE`?",
    ]
    assert "--> benchmarks/split.yaml:6:10" in found["unknown-split"]
    assert "mine.yaml:9:20 names this benchmark" in found["unknown-split"]


def test_what_a_hub_refuses_is_told_before_the_first_stage(hub: Hub, folder: Path):
    hub.add("models/some/odd", {"config.json": b'{"model_type": "quux"}'})
    hub.add("models/some/gated", {"config.json": b"{}"}, token=TOKEN)
    text = RECIPE.replace("some/pairs", "some/pears").replace("pocket/base", "some/odd")
    judged = """\
generator: {model: pocket/synthesizer, prompt: synthesize@1}
filters:
  tasks:
    - use: consistency
      judge: {model: some/gated}
"""
    (folder / "mine.yaml").write_text(text.replace("base: {", judged + "base: {"))
    done = adapt(folder, hub, "run", "mine.yaml", HF_TOKEN="hf_of_somebody_else")
    found = errors(done.stderr)

    assert done.returncode == 1, done.stderr
    assert set(found) == {"hub-not-found", "hub-gated", "unknown-model-family"}
    assert "--> mine.yaml:5:12\n" in found["hub-not-found"]
    assert "      judge: {model: some/gated}" in found["hub-gated"]
    assert "set HF_TOKEN to a token of that account" in found["hub-gated"]
    assert "the type of `some/odd`: `quux`" in found["unknown-model-family"]
    assert "known types: gemma3, " in found["unknown-model-family"]
    assert not (folder / ".adapt" / "runs").exists()
    assert "hf_of_somebody_else" not in done.stdout + done.stderr


def test_a_rehearsal_asks_the_hub_what_a_model_is(hub: Hub, folder: Path):
    hub.add("models/some/odd", {"config.json": b'{"model_type": "quux"}'})
    (folder / "mine.yaml").write_text(RECIPE.replace("pocket/base", "some/odd"))
    done = adapt(folder, hub, "rehearse", "--with-data", "2", "mine.yaml")

    assert done.returncode == 1, done.stderr
    told = errors(done.stderr)["unknown-model-family"]
    assert "no model family knows the type of `some/odd`: `quux`" in told
    assert "base: {model: some/odd" in told


def test_a_locked_commit_that_is_gone_names_the_line_of_the_lock(hub: Hub, folder: Path):
    (folder / "mine.yaml").write_text(RECIPE.replace("[config, split]", "[well]"))
    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    bench = hub.repos["datasets/some/bench"]
    hub.add("datasets/some/bench", bench.commits.pop(OLD), 2)
    done = adapt(folder, hub, "run", "mine.yaml", "--only", "collect/well")

    assert done.returncode == 1
    assert errors(done.stderr)["hub-no-revision"].splitlines() == [
        f"error[hub-no-revision]: the dataset `some/bench` has no revision `{OLD}`",
        "  --> benchmarks/well.yaml:2:1",
        "    2 | source:",
        "      | ^",
        "  note: mine.yaml:9:12 names this benchmark",
        "  note: mine.lock.json:4:3 locked here; `adapt lock mine.yaml` follows the hub",
        f"  help: its newest commit is `{commit(2)}`; its commits, branches and tags are at "
        f"{hub.url}/datasets/some/bench/tree/main",
    ]
