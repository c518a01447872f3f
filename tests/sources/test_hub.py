from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.diagnostics import StageError
from engine.sources import Row
from tests.sources.building import captions, fingerprint, num_rows, picture, read


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


def save_dataset(folder: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = [
        {"image": {"bytes": picture(n, image_format="JPEG"), "path": None}, "text": f"Number {n}."}
        for n in range(4)
    ]
    table: Any = datasets.Dataset.from_list(rows, features=features)
    (folder / "data").mkdir()
    table.to_parquet(folder / "data" / "train-00000-of-00001.parquet")


def test_pictures_pass_through_as_they_were_saved(tmp_path: Path) -> None:
    save_dataset(tmp_path)
    settings = {"dataset": "./data", "columns": {"caption": "text"}, "licence": "CC0-1.0"}

    found = read("hub", tmp_path, range(1, 3), **settings)

    assert captions(found) == [
        ("./data/train row 1", "Number 1."),
        ("./data/train row 2", "Number 2."),
    ]
    assert isinstance(found[0], Row)
    assert (picture(1, image_format="JPEG"),) == found[0].images
    assert found[0].licence == "CC0-1.0"
    assert num_rows("hub", tmp_path, **settings) == 4


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    save_dataset(tmp_path)

    with pytest.raises(StageError, match="has no column `caption`; it has `image`, `text`"):
        read("hub", tmp_path, dataset="./data")


def test_offline_a_dataset_outside_the_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="`nobody/nothing` is not in the local cache"):
        read("hub", tmp_path, dataset="nobody/nothing")


def test_a_hub_dataset_is_known_by_its_revision(tmp_path: Path) -> None:
    known = fingerprint("hub", tmp_path, dataset="owner/name", revision="abc", split="test")

    assert known == {"hub": "owner/name", "revision": "abc", "config": None, "split": "test"}


def test_pictures_that_a_dataset_only_names_lie_beside_it(tmp_path: Path) -> None:
    """As AdaptLLM's training sets: a JSON list of chats, and zips of pictures to unpack."""
    turns = [{"role": "user", "content": "<image>Describe it."}]
    turns.append({"role": "assistant", "content": "A pie."})
    (tmp_path / "set").mkdir()
    rows = [{"images": ["1.jpg"], "messages": turns}, {"images": ["2.jpg"], "messages": turns}]
    (tmp_path / "set" / "pairs.json").write_text(json.dumps(rows))
    (tmp_path / "set" / "other.json").write_text("[]")
    settings = {"dataset": "./set", "data_file": "pairs.json", "image_root": "pictures"}

    with pytest.raises(StageError, match="the folder `pictures` does not exist"):
        read("hub", tmp_path, **settings)
    before = fingerprint("hub", tmp_path, **settings)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.jpg").write_bytes(picture(1, image_format="JPEG"))

    assert captions(read("hub", tmp_path, **settings)) == [
        ("./set/pairs.json/train row 0", "A pie."),
        ("./set/pairs.json/train row 1", "image file not found"),
    ]
    assert "pictures" not in before
    assert fingerprint("hub", tmp_path, **settings)["pictures"]["num_files"] == 1
