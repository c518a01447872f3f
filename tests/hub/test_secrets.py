"""A token opens a gated hub, and is written down nowhere: not by a run, and not by its failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import loopback
from tests.hub.loopback import Hub
from tests.hub.test_download import rows
from tests.hub.test_lock import FILES, RECIPE, TOKEN, adapt


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with loopback.serving() as hub:
        hub.add("models/some/base", FILES)
        hub.add("datasets/some/rows", {"train.parquet": rows("old", tmp_path)}, token=TOKEN)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


def holders(text: str, folder: Path) -> list[str]:
    """Return the files below a folder, hidden ones too, that hold a text."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if text.encode() in path.read_bytes()]


def test_a_run_that_needs_a_token_leaves_it_nowhere(folder: Path, hub: Hub):
    assert adapt(folder, hub, "lock", "mine.yaml", HF_TOKEN=TOKEN).returncode == 0
    run = ("run", "mine.yaml", "--frozen", "--only", "collect", "--online", "--json")
    for words in (("plan", "mine.yaml", "-o", "kept.plan.json"), run):
        done = adapt(folder, hub, *words, HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr

    assert holders("old 0", folder.parent), "the gated rows were read"
    assert holders(TOKEN, folder.parent) == []


def test_a_run_that_is_refused_tells_no_token(folder: Path, hub: Hub):
    assert adapt(folder, hub, "lock", "mine.yaml", HF_TOKEN=TOKEN).returncode == 0
    other = TOKEN.replace("secret", "nobody")
    run = ("run", "mine.yaml", "--only", "collect", "--online")
    done = adapt(folder, hub, *run, HF_TOKEN=other)

    assert done.returncode == 1
    assert "error[hub-gated]" in done.stderr
    assert other not in done.stdout + done.stderr
    assert holders(other, folder.parent) == []
