"""Rehearsals with what a hub has: the first rows of its data sets, and its models themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import loopback
from tests.hub.loopback import Hub
from tests.hub.test_bad_input import table
from tests.hub.test_lock import adapt
from tests.models import tiny

RECIPE = """\
recipe: 1
name: mine
source: {use: hub, dataset: some/rows, columns: {image: image, caption: text}}
generator:
  model: some/base
  prompt: synthesize@1
  max_new_tokens: 32
base: {model: some/base}
training: {max_length: 512}
benchmarks: {domain: [holdout]}
"""
REHEARSE = ("rehearse", "mine.yaml", "--device", "cpu")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    model = tiny.idefics3(tmp_path / "tiny")
    config = json.loads((model / "config.json").read_text())
    config["text_config"] |= {"hidden_size": 65536, "num_hidden_layers": 512}
    pairs = table(tmp_path, text=["A red field.", "A green field.", "A blue field."])
    with loopback.serving() as hub:
        hub.add("models/some/base", {path.name: path.read_bytes() for path in model.iterdir()})
        hub.add("models/some/giant", {"config.json": json.dumps(config).encode()})
        hub.add("datasets/some/rows", {"train.parquet": pairs})
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


def test_models_and_rows_of_a_hub_are_rehearsed(folder: Path, hub: Hub):
    done = adapt(folder, hub, *REHEARSE, "--with-models", "--with-data", "2", "--json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])["rehearsal"]
    assert result["rows"] == {"source": "the first 2 rows of some/rows"}
    assert result["models"] == {}, "nothing stood in"
    assert result["unchecked"] == ["how good anything is: every score is one of noise"]
    fetched = [one.rpartition("/")[2] for one in hub.asked if one.startswith("GET")]
    assert {"model.safetensors", "train.parquet"} <= set(fetched)
    assert not (folder / ".adapt" / "runs").exists(), "a rehearsal is no run"


def test_without_models_none_is_downloaded(folder: Path, hub: Hub):
    done = adapt(folder, hub, *REHEARSE, "--with-data", "2", "--json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])["rehearsal"]
    assert result["models"] == {"some/base": "a small idefics3 of random weights"}
    assert not [one for one in hub.asked if one.endswith("model.safetensors")]


def test_models_that_do_not_fit_are_refused_before_they_are_downloaded(folder: Path, hub: Hub):
    (folder / "mine.yaml").write_text(RECIPE.replace("some/base", "some/giant"))
    done = adapt(folder, hub, *REHEARSE, "--with-models")

    assert done.returncode == 1, done.stdout
    assert "GB or more for `some/giant`; this machine has" in done.stderr
    assert "mine.yaml:5" in done.stderr
    assert done.stderr.endswith("adapt rehearse mine.yaml\n"), "what goes here"
    assert not [one for one in hub.asked if one.endswith("safetensors")]
