"""Checkpoints that cannot be converted end in an error that says what is wrong with them."""

from __future__ import annotations

import json
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from engine.conversion import llava
from engine.conversion.settings import Tower
from engine.diagnostics import StageError
from tests.conversion import original


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return original.tower(tmp_path_factory.mktemp("tower") / original.TOWER)


@pytest.fixture
def checkpoint(tower: Path, tmp_path: Path) -> Path:
    return original.checkpoint(tmp_path / "original", tower)


def refusal(checkpoint: Path, tower: Path, name: str = f"openai/{original.TOWER}") -> StageError:
    """Convert, and return why that cannot be done; nothing must be left that looks done."""
    into = checkpoint.parent / "converted"
    with pytest.raises(StageError) as caught:
        llava.convert(checkpoint, Tower(name, tower), into)
    assert not (into / "config.json").exists()
    return caught.value


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another projector": ({"mm_projector_type": "mlp3x_gelu"}, "of the type `mlp3x_gelu`"),
    "a linear projector": ({"mm_projector_type": "linear"}, "of the type `linear`"),
    "LLaVA-1.5": ({"image_aspect_ratio": "pad"}, "is a LLaVA-1.5 (`image_aspect_ratio: pad`)"),
    "LLaVA-OneVision": ({"image_aspect_ratio": "anyres_max_9"}, "is another kind of LLaVA"),
    "tiles without unpadding": ({"mm_patch_merge_type": "flat"}, "joins tiles by `flat`"),
    "class token": ({"mm_vision_select_feature": "cls_patch"}, "reads `cls_patch` of its tower"),
    "marked images": ({"mm_use_im_start_end": True}, "with `mm_use_im_start_end`"),
    "several scales": ({"s2": True}, "with `s2`"),
    "no tower": ({"mm_vision_tower": None}, "names no vision tower"),
    "grids of another form": ({"image_grid_pinpoints": "(1x1),...,(6x6)"}, "are not pairs"),
    "grids of other tiles": (
        {"image_grid_pinpoints": [[48, 32]]},
        "the grid 48 x 32 of the checkpoint is not made of tiles of 32 x 32",
    ),
    "no grids": ({"image_grid_pinpoints": []}, "names no grids"),
    "another type": ({"model_type": "llava_mpt"}, "its type is `llava_mpt`"),
    "converted before": ({"model_type": "llava", "text_config": {}}, "is no original LLaVA"),
    "more layers": ({"num_hidden_layers": 3}, "is not whole: `language_model.model.layers.2."),
    "fewer layers": ({"num_hidden_layers": 1}, "holds more than its config says"),
    "another width": ({"intermediate_size": 97}, "is 96 x 64 in the checkpoint, and 97 x 64 by"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_cannot_be_converted_is_refused(case: str, tower: Path, checkpoint: Path):
    changes, message = CONFIGS[case]
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | changes))

    assert message in str(refusal(checkpoint, tower))


def test_a_checkpoint_without_a_projector_is_refused(tower: Path, checkpoint: Path):
    def cut(weights: dict[str, Any]) -> None:
        for name in [name for name in weights if "mm_projector" in name]:
            del weights[name]

    original.rewrite(checkpoint, cut)
    error = refusal(checkpoint, tower)

    assert "the checkpoint has no projector: `multi_modal_projector.linear_1.bias`" in str(error)
    assert "must be joined with its decoder first" in (error.hint or "")


def test_a_projector_alone_is_refused(tower: Path, checkpoint: Path):
    def cut(weights: dict[str, Any]) -> None:
        for name in [name for name in weights if "mm_projector" not in name]:
            del weights[name]

    original.rewrite(checkpoint, cut)

    assert "the checkpoint holds no decoder" in str(refusal(checkpoint, tower))


def test_adapters_are_refused_with_what_to_do(tower: Path, checkpoint: Path):
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    original.rewrite(checkpoint, lambda weights: weights.update({name: weights["lm_head.weight"]}))
    error = refusal(checkpoint, tower)

    assert str(error) == "the checkpoint holds low-rank adapters"
    assert "merge them" in (error.hint or "")


def test_tensors_of_other_models_are_refused_by_name(tower: Path, checkpoint: Path):
    name = "model.vision_resampler.query"
    original.rewrite(checkpoint, lambda weights: weights.update({name: weights["lm_head.weight"]}))

    assert f"tensors that no LLaVA-NeXT has: `{name}`" in str(refusal(checkpoint, tower))


def test_a_tower_that_is_no_clip_is_refused(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "siglip"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "siglip"}')
    error = refusal(checkpoint, folder, "google/siglip-so400m-patch14-384")

    assert "`google/siglip-so400m-patch14-384` is of the type `siglip`, not CLIP" in str(error)
    assert "openai/clip-vit-large-patch14-336" in (error.hint or "")


def test_the_weights_of_another_tower_are_never_put_in(tower: Path, tmp_path: Path):
    checkpoint = original.checkpoint(tmp_path / "original")
    error = refusal(checkpoint, tower, "openai/clip-vit-large-patch14")

    assert f"sees with `openai/{original.TOWER}`" in str(error)
    assert "the recipe names `openai/clip-vit-large-patch14`" in str(error)
    assert f"set `vision_tower.model: openai/{original.TOWER}`" in (error.hint or "")


def test_a_copy_of_the_tower_under_another_path_is_that_tower(tower: Path, tmp_path: Path):
    checkpoint = original.checkpoint(
        tmp_path / "original", mm_vision_tower=f"/data/towers/{original.TOWER}/"
    )
    named = Tower(f"./towers/{original.TOWER}", tower)

    assert not llava.convert(checkpoint, named, tmp_path / "converted").has_own_tower


def test_settings_of_another_tower_do_not_fit_tuned_weights(checkpoint: Path, tmp_path: Path):
    other = original.tower(tmp_path / "smaller", side=16)

    assert "position_embedding.weight` is 17 x 32 in the checkpoint, and 5 x 32" in str(
        refusal(checkpoint, other)
    )


def test_a_missing_shard_is_named(tower: Path, checkpoint: Path):
    (checkpoint / "model-00002-of-00002.safetensors").unlink()

    assert "no file `model-00002-of-00002.safetensors`" in str(refusal(checkpoint, tower))


def test_half_a_shard_is_named(tower: Path, checkpoint: Path):
    shard = checkpoint / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])

    assert f"`{shard.name}` of the checkpoint cannot be read" in str(refusal(checkpoint, tower))


def test_a_folder_without_weights_says_what_is_looked_for(tower: Path, checkpoint: Path):
    for path in checkpoint.glob("model*"):
        path.unlink()

    assert "neither `model.safetensors` nor `pytorch_model.bin`" in str(refusal(checkpoint, tower))


def test_an_index_cannot_point_outside_of_the_checkpoint(tower: Path, checkpoint: Path):
    index = {"weight_map": {"lm_head.weight": "../secret.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "a file outside of the checkpoint" in str(refusal(checkpoint, tower))


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "run")


def test_code_in_a_pickled_checkpoint_is_not_run(tower: Path, checkpoint: Path, tmp_path: Path):
    for path in checkpoint.glob("model*"):
        path.unlink()
    attack = {"lm_head.weight": Attack(tmp_path / "written")}
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(attack))
    error = refusal(checkpoint, tower)

    assert "`pytorch_model.bin` of the checkpoint cannot be read" in str(error)
    assert not (tmp_path / "written").exists()


def test_a_checkpoint_without_a_tokenizer_is_refused(tower: Path, checkpoint: Path):
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()

    assert "the tokenizer of the checkpoint cannot be opened" in str(refusal(checkpoint, tower))


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="it can be read here")
def test_a_tokenizer_of_sentencepiece_names_the_package_that_reads_it(
    tower: Path, checkpoint: Path
):
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer.model").write_bytes(b"pieces")

    assert "pip install sentencepiece" in (refusal(checkpoint, tower).hint or "")


@pytest.mark.parametrize("kind", ["llava_llama", "llava"])
def test_an_original_that_is_loaded_as_it_is_tells_the_layout(kind: str, checkpoint: Path):
    from engine.models._loading import open_kit

    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    with pytest.raises(StageError) as caught:
        open_kit(str(checkpoint))

    assert "`layout: llava`" in (caught.value.hint or "")
