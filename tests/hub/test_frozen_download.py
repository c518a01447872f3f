"""A frozen run on a machine that has nothing yet: what it downloads itself is compared as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import loopback
from tests.hub.loopback import Handler, Hub, commit, digest
from tests.hub.test_download import other_weights, rows
from tests.hub.test_lock import adapt
from tests.models import tiny

RECIPE = """\
recipe: 1
name: mine
source: {use: hub, dataset: some/rows, task: pairs, columns: {image: image, caption: text}}
base: {model: some/base}
training: {max_length: 512, global_batch_size: 1}
benchmarks: {domain: [holdout]}
"""
RUN = ("run", "mine.yaml", "--only", "train", "--online")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny.idefics3(tmp_path_factory.mktemp("tiny"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(base: dict[str, bytes], tmp_path: Path) -> Iterator[Hub]:
    """Serve a hub that says one digest and sends, under its name, as many other bytes."""
    others = other_weights(base)["model.safetensors"]
    assert len(others) == len(base["model.safetensors"])

    def swap(handler: Handler) -> bool:
        said = digest("model.safetensors", base["model.safetensors"]).removeprefix("sha256:")
        handler.send(others, {"ETag": f'"{said}"', "X-Repo-Commit": commit(1)})
        return True

    with loopback.serving() as hub:
        hub.add("models/some/base", base)
        hub.add("datasets/some/rows", {"train.parquet": rows("old", tmp_path)})
        hub.faults["resolve/" + commit(1) + "/model.safetensors"] = swap
        yield hub


@pytest.fixture
def folder(tmp_path: Path, hub: Hub) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    return folder


def test_a_frozen_run_that_downloads_other_bytes_does_not_end_well(folder: Path, hub: Hub):
    done = adapt(folder, hub, *RUN, "--frozen", "--json")

    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 5
    assert "error[lock-drift]: model some/base file model.safetensors: sha256:" in done.stderr
    assert "run it again with another --store" in done.stderr


def test_honest_downloads_end_well(folder: Path, hub: Hub):
    hub.faults.clear()
    done = adapt(folder, hub, *RUN, "--frozen")

    assert done.returncode == 0, done.stderr
