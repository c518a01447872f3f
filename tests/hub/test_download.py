"""What is locked is what is loaded, by the real clients, after the hub moved on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import loopback
from tests.hub.loopback import Handler, Hub, commit
from tests.hub.test_lock import RECIPE, adapt, environment
from tests.models import tiny

LOAD = """\
import sys
from engine.models import _loading
kit = _loading.open_kit(sys.argv[1], sys.argv[2])
model = _loading.load_weights(kit, dtype="float32", device="cpu")
print(round(float(model.get_input_embeddings().weight.sum()), 3))
"""

FETCH = """\
import sys
from huggingface_hub import hf_hub_download
print(hf_hub_download(sys.argv[1], "model.safetensors", revision=sys.argv[2]))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny.llama(tmp_path_factory.mktemp("tiny"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(base: dict[str, bytes], tmp_path: Path) -> Iterator[Hub]:
    with loopback.serving() as hub:
        hub.add("models/some/base", base)
        hub.add("datasets/some/rows", {"train.parquet": rows("old", tmp_path)})
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


def rows(word: str, folder: Path) -> bytes:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    picture = {"bytes": tiny.picture(), "path": None}
    table = datasets.Dataset.from_list(
        [{"image": picture, "text": f"{word} {number}"} for number in range(3)], features=features
    )
    table.to_parquet(folder / "rows.parquet")
    return (folder / "rows.parquet").read_bytes()


def other_weights(base: dict[str, bytes]) -> dict[str, bytes]:
    """Return the model with every weight doubled."""
    from safetensors.torch import load, save

    tensors = {name: 2 * tensor for name, tensor in load(base["model.safetensors"]).items()}
    return {**base, "model.safetensors": save(tensors, {"format": "pt"})}


def weight_sum(base: dict[str, bytes]) -> float:
    from safetensors.torch import load

    return round(float(load(base["model.safetensors"])["model.embed_tokens.weight"].sum()), 3)


def load(folder: Path, hub: Hub, revision: str) -> subprocess.CompletedProcess[str]:
    """Load the model in a process of its own, as a worker does."""
    return subprocess.run(
        [sys.executable, "-c", LOAD, "some/base", revision],
        env=environment(folder, hub),
        capture_output=True,
        text=True,
        timeout=300,
    )


def fetch(folder: Path, hub: Hub) -> Path:
    """Download the weights with the client alone."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, "some/base", commit(1)],
        env=environment(folder, hub),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Path(done.stdout.strip())


def test_the_locked_commits_are_loaded_after_the_branches_moved(
    folder: Path, hub: Hub, base: dict[str, bytes], tmp_path: Path
):
    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    hub.add("models/some/base", other_weights(base), 2)
    hub.add("datasets/some/rows", {"train.parquet": rows("new", tmp_path)}, 2)

    ran = adapt(folder, hub, "run", "mine.yaml", "--frozen", "--only", "collect", "--online")
    assert ran.returncode == 0, ran.stderr
    captions = adapt(folder, hub, "show", "newest", "collect", "--json").stdout
    assert "old 0" in captions
    assert "new 0" not in captions

    planned = json.loads(adapt(folder, hub, "plan", "mine.yaml", "--json").stdout)
    train = next(node for node in planned["nodes"] if node["id"] == "train")
    loaded = load(folder, hub, train["params"]["revision"])
    assert loaded.stdout == f"{weight_sum(base)}\n", loaded.stderr

    checked = adapt(folder, hub, "lock", "mine.yaml", "--check")
    assert f"model some/base revision: {commit(1)} -> {commit(2)}" in checked.stdout
    assert f"dataset some/rows revision: {commit(1)} -> {commit(2)}" in checked.stdout


def test_half_a_download_is_an_error_and_is_never_used(
    folder: Path, hub: Hub, base: dict[str, bytes]
):
    hub.faults["model.safetensors"] = _half(base["model.safetensors"])

    broken = load(folder, hub, commit(1))
    assert broken.stdout == ""
    said = broken.stderr.splitlines()[-1]
    assert "StageError: the weights of `some/base` cannot be loaded: peer closed" in said
    held = (folder.parent / "home").rglob("model.safetensors")
    assert list(held) == []

    hub.faults.clear()
    assert fetch(folder, hub).read_bytes() == base["model.safetensors"]


def test_a_downloaded_model_whose_bytes_are_others_is_a_drift(folder: Path, hub: Hub):
    assert adapt(folder, hub, "lock", "mine.yaml").returncode == 0
    fetched = fetch(folder, hub)
    assert adapt(folder, hub, "lock", "mine.yaml", "--check", "--offline").returncode == 0
    content = bytearray(fetched.read_bytes())
    content[-1] ^= 1
    fetched.resolve().write_bytes(content)

    for words in (("lock", "mine.yaml", "--check", "--offline"), ("run", "mine.yaml", "--frozen")):
        done = adapt(folder, hub, *words)
        assert done.returncode == 5
        assert "error[lock-drift]: model some/base file model.safetensors: sha256:" in done.stderr
        assert done.stderr.count("error[") == 1


def _half(content: bytes):
    def cut(handler: Handler) -> bool:
        if handler.command == "HEAD":
            return False
        handler.send(content, cut=len(content) // 2)
        return True

    return cut
