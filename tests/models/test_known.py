from __future__ import annotations

import json
from pathlib import Path

from engine.models._known import ModelFinder, hub_cache

GPT2 = {"model_type": "gpt2", "n_embd": 8}


def write(folder: Path, config: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_of_the_recipe_is_read(tmp_path: Path):
    write(tmp_path / "models" / "x", GPT2)
    found = ModelFinder(lambda name: tmp_path / name).find("./models/x")

    assert found is not None
    assert (found.kind, found.architecture, found.basis) == ("gpt2", None, "its config.json")


def test_the_local_hub_cache_comes_before_the_catalogue(tmp_path: Path):
    name = "Qwen/Qwen2-VL-2B-Instruct"
    folder = tmp_path / "models--Qwen--Qwen2-VL-2B-Instruct"
    write(folder / "snapshots" / "abc", GPT2)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    cached = ModelFinder(hub_cache=tmp_path).find(name)
    published = ModelFinder(hub_cache=tmp_path / "none").find(name)

    assert cached is not None
    assert published is not None
    assert (cached.kind, cached.basis) == ("gpt2", "its config.json in the local hub cache")
    assert (published.kind, published.basis) == ("qwen2_vl", "its published config")


def test_another_revision_is_another_snapshot(tmp_path: Path):
    write(tmp_path / "models--a--b" / "snapshots" / "abc", GPT2)

    assert ModelFinder(hub_cache=tmp_path).find("a/b", "abc") is not None
    assert ModelFinder(hub_cache=tmp_path).find("a/b", "def") is None


def test_what_nobody_knows_is_none(tmp_path: Path):
    assert ModelFinder(hub_cache=tmp_path).find("who/knows") is None
    assert ModelFinder().find("./nowhere") is None


def test_a_broken_config_is_no_architecture(tmp_path: Path):
    write(tmp_path / "x", {"model_type": "llama", "hidden_size": "wide"})
    found = ModelFinder(lambda name: tmp_path / name).find("./x")

    assert found is not None
    assert found.architecture is None


def test_the_hub_cache_is_where_the_hub_client_has_it():
    assert hub_cache({"HF_HUB_CACHE": "/a"}) == Path("/a")
    assert hub_cache({"HF_HOME": "/b"}) == Path("/b/hub")
    assert hub_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")


def test_an_original_llava_is_known_by_what_it_is_converted_to(tmp_path: Path):
    text = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 300}
    own = {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}
    own |= {"image_aspect_ratio": "anyres", "image_grid_pinpoints": "[(336, 672), (672, 336)]"}
    own["mm_vision_tower"] = "/data/openai/clip-vit-large-patch14-336"
    write(tmp_path / "x", {"model_type": "llava_llama", **text, **own})
    write(tmp_path / "y", {"model_type": "llava_llama", **text, **own, "mm_vision_tower": "eva"})
    finder = ModelFinder(lambda name: tmp_path / name)
    found, of_another_tower = finder.find("./x"), finder.find("./y")

    assert found is not None
    assert found.architecture is not None
    assert found.kind == "llava_next"
    assert found.architecture.language.vocab == 320  # with the image token, a multiple of 64
    assert found.image(20, 30).tokens == 576 + 36 * (24 + 1)  # in the first grid: upright
    assert of_another_tower is not None
    assert of_another_tower.architecture is None
