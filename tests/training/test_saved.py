"""A trained LLaVA-NeXT is stored under the names that transformers and vLLM both read."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.models._loading import load_weights, open_kit
from engine.training.loop import save_model
from tests.models import tiny
from tests.models.test_families import llava_next


def stored(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def part(name: str) -> str:
    return ".".join(name.split(".")[:2]) if "." in name else name


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_a_model_is_stored_under_the_names_of_the_released_ones(is_tied: bool, tmp_path: Path):
    import torch

    kit = open_kit(str(llava_next(tmp_path / "base", is_tied=is_tied)))
    model = load_weights(kit, dtype=torch.float32, device="cpu")
    save_model(model, kit, tmp_path / "saved", torch.float32)
    names = stored(tmp_path / "saved")
    again = load_weights(open_kit(str(tmp_path / "saved")), dtype=torch.float32, device="cpu")

    assert {part(name) for name in names} == {
        "vision_tower.vision_model",
        "multi_modal_projector.linear_1",
        "multi_modal_projector.linear_2",
        "image_newline",
        "language_model.model",
        *(() if is_tied else ("language_model.lm_head",)),
    }
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_model_with_merged_adapters_is_stored_in_the_same_way(tmp_path: Path):
    import torch

    from engine.recipe.model import LoraSpec
    from engine.training import parts

    kit = open_kit(str(llava_next(tmp_path / "base")))
    model = load_weights(kit, dtype=torch.float32, device="cpu")
    save_model(model, kit, tmp_path / "plain", torch.float32)
    spec = LoraSpec(rank=2, alpha=4, dropout=0.0, targets=("all-linear",))
    with_adapters = parts.with_lora(model, kit.family, ("language",), spec, 0)
    save_model(with_adapters.merge_and_unload(), kit, tmp_path / "merged", torch.float32)

    assert stored(tmp_path / "merged").keys() == stored(tmp_path / "plain").keys()


def test_what_was_stored_with_either_names_is_stored_with_the_same(tmp_path: Path):
    import torch

    kit = open_kit(str(llava_next(tmp_path / "base")))
    folders = [tmp_path / "base", tmp_path / "first", tmp_path / "second"]
    for before, after in pairwise(folders):
        model = load_weights(open_kit(str(before)), dtype=torch.float32, device="cpu")
        save_model(model, kit, after, torch.float32)

    assert stored(folders[0]).keys() != stored(folders[1]).keys()  # as transformers names them
    assert stored(folders[1]).keys() == stored(folders[2]).keys()


def test_generation_defaults_that_contradict_themselves_cost_no_training(tmp_path: Path):
    import torch
    from transformers import GenerationConfig

    base = tiny.llama(tmp_path / "base")
    written = {"temperature": 0.9, "top_p": 0.6, "do_sample": False, "eos_token_id": 3}
    (base / "generation_config.json").write_text(json.dumps(written))
    kit = open_kit(str(base))
    save_model(
        load_weights(kit, dtype=torch.float32, device="cpu"), kit, tmp_path / "s", torch.float32
    )
    kept = GenerationConfig.from_pretrained(tmp_path / "s")

    assert kept.eos_token_id == 3
    assert not kept.do_sample
