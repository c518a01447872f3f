"""Adapters of every family: on the linear layers of the named part, merged back, read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.models import family_of
from engine.recipe.model import LoraSpec
from tests.models import tiny
from tests.models.test_families import llava_next, mllama
from tests.models.tiny_families import MAKERS
from tests.training import test_loop

EVERY: dict[str, Callable[[Path], Path]] = {
    **MAKERS,
    "idefics3": tiny.idefics3,
    "llava_next": llava_next,
    "mllama": mllama,
}
LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
SPEC = LoraSpec(rank=2, alpha=4, dropout=0.0, targets=("all-linear",))


def changed_layers(folder: Path, part: str) -> set[str]:
    """Train adapters on a part for two steps; return the modules whose merged weights changed."""
    import torch

    wanted = test_loop.job(folder, max_steps=2, learning_rate=1e-2, weight_decay=0.0)
    outputs = test_loop.train(folder, replace(wanted, parts=(part,), lora=SPEC))
    before, after = (opened(path) for path in (folder, outputs.path / "model"))
    family = family_of(before.config.model_type)
    learnt = after.state_dict()
    moved = {n for n, value in before.state_dict().items() if not torch.equal(value, learnt[n])}
    assert {family.part_of(name) for name in moved} == {part}
    return {name.removesuffix(".weight") for name in moved}


def opened(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder)


pytestmark = pytest.mark.filterwarnings("ignore:.hidden_state. is depr:FutureWarning")  # Mllama's


@pytest.mark.parametrize("name", EVERY)
def test_adapters_are_on_all_linear_layers_of_the_language_part(name: str, tmp_path: Path):
    moved = changed_layers(EVERY[name](tmp_path), "language")

    assert {module.rpartition(".")[2] for module in moved} == LAYERS


@pytest.mark.parametrize("name", EVERY)
def test_adapters_are_on_the_linear_layers_of_the_tower(name: str, tmp_path: Path):
    moved = changed_layers(EVERY[name](tmp_path), "vision")

    assert any("attn" in module or "attention" in module for module in moved)
    assert any("mlp" in module for module in moved)
