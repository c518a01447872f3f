"""What a recipe says of a hub and the hub does not: told at its line, with what there is instead.

The clients are the real `datasets`, `transformers` and `huggingface_hub`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
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


def table(folder: Path, **columns: list[Any]) -> bytes:
    """Return a Parquet file with pictures and further columns."""
    import datasets

    kinds = {name: datasets.Value("string") for name in columns}
    features = datasets.Features({"image": datasets.Image(), **kinds})
    num_rows = len(next(iter(columns.values())))
    pictures = [{"bytes": tiny.picture(), "path": None}] * num_rows
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


@pytest.fixture
def hub(pairs: bytes, questions: bytes) -> Iterator[Hub]:
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


def test_a_gated_set_is_read_with_the_token_of_one_who_may(hub: Hub, tmp_path: Path):
    cases = {"gated": {"dataset": "some/gated", "columns": {"caption": "text"}}}

    assert read(hub, tmp_path, cases, HF_TOKEN=TOKEN) == {"gated": {"rows": 3}}


def test_a_busy_hub_and_a_lost_line_are_tried_again(hub: Hub, tmp_path: Path):
    busy = read(hub, tmp_path, {"busy": {"dataset": "some/busy"}})["busy"]
    lost = read(
        hub, tmp_path, {"lost": {"dataset": "some/bench"}}, HF_ENDPOINT="http://127.0.0.1:9"
    )

    assert (busy["code"], busy["kind"]) == ("hub-unavailable", "network")
    assert (lost["lost"]["code"], lost["lost"]["kind"]) == ("hub-unavailable", "network")


def test_another_commit_in_the_cache_is_not_taken_for_the_one_that_was_asked(
    hub: Hub, tmp_path: Path
):
    pairs = {"dataset": "some/pairs", "columns": {"caption": "text"}}
    cases = {
        "first": pairs,
        "lost": {**pairs, "revision": LOST},
        "cached": {**pairs, "revision": OLD, "is_offline": True},
        "offline": {**pairs, "revision": LOST, "is_offline": True},
    }
    found = read(hub, tmp_path, cases)

    assert (found["first"], found["cached"]) == ({"rows": 3}, {"rows": 3})
    assert (found["lost"]["code"], found["lost"]["about"]) == ("hub-no-revision", ["revision"])
    assert found["offline"]["message"] == (
        f"the local cache holds the dataset `some/pairs` at another commit than `{LOST}`"
    )
    assert found["offline"]["kind"] is None
