"""An original LLaVA from a hub: two models are pinned, and only what is read is downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conversion import original
from tests.hub import loopback
from tests.hub.loopback import Hub, commit
from tests.hub.test_lock import adapt

RECIPE = f"""\
recipe: 1
name: mine
source: {{use: pocket, world: cells, num_rows: 4}}
base:
  model: some/llava
  layout: llava
  vision_tower: {{model: openai/{original.TOWER}}}
benchmarks: {{domain: [pocket_cells]}}
"""
RUN = ("run", "mine.yaml", "--only", "convert/base", "--online")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(params=["own tower", "named tower"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    tower = original.tower(tmp_path / original.TOWER)
    own = tower if request.param == "own tower" else None
    checkpoint = original.checkpoint(tmp_path / "llava", own)
    with loopback.serving() as hub:
        unread = {"README.md": b"about", "pytorch_model.bin": b"again", "trainer_state.bin": b"x"}
        hub.add("models/some/llava", {**content(checkpoint), **unread})
        hub.add(f"models/openai/{original.TOWER}", {**content(tower), "tf_model.h5": b"again"})
        yield hub


def test_only_what_is_read_is_downloaded_at_the_locked_commits(
    folder: Path, hub: Hub, request: pytest.FixtureRequest
):
    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    facts = json.loads((folder / "mine.lock.json").read_text())["facts"]
    for name in ("models/some/llava", f"models/openai/{original.TOWER}"):
        hub.add(name, {"config.json": b"{}"}, 2)  # the branch moves on
    hub.asked.clear()
    done = adapt(folder, hub, *RUN, "--frozen")
    loaded = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    has_own = "own tower" in request.node.name

    assert done.returncode == 0, done.stderr
    assert facts["model some/llava revision"] == commit(1)
    assert facts[f"model openai/{original.TOWER} revision"] == commit(1)
    assert {"model-00001-of-00002.safetensors", "tokenizer.json"} <= loaded
    assert not {"README.md", "trainer_state.bin", "tf_model.h5"} & loaded
    assert ("pytorch_model.bin" in loaded) != has_own  # the tower's alone

    hub.asked.clear()
    offline = ("--frozen", "--offline", "--store", "another")
    done = adapt(folder, hub, *RUN[:-1], *offline)
    assert done.returncode == 0, done.stderr
    assert hub.asked == []


@pytest.mark.parametrize("hub", ["named tower"], indirect=True)
def test_a_shard_that_the_hub_keeps_back_is_told(folder: Path, hub: Hub):
    hub.faults["model-00002-of-00002.safetensors"] = loopback.always(lambda h: h.refuse(403))
    done = adapt(folder, hub, *RUN)

    assert done.returncode == 3
    assert "the model `some/llava` cannot be had" in done.stderr


@pytest.mark.slow  # the client tries again for 40 seconds
@pytest.mark.parametrize("hub", ["named tower"], indirect=True)
def test_half_a_download_is_told(folder: Path, hub: Hub):
    def cut(handler: loopback.Handler) -> bool:
        if handler.command == "HEAD":
            return False
        handler.send(b"half of it", cut=5)
        return True

    hub.faults["model-00002-of-00002.safetensors"] = cut
    done = adapt(folder, hub, *RUN)

    assert done.returncode == 3
    assert "the model `some/llava` cannot be had" in done.stderr
