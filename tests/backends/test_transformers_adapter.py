from __future__ import annotations

from pathlib import Path

import pytest

from engine.backends import ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.diagnostics import StageError
from engine.plan.stage import Machine
from engine.records import ImagePart, user
from tests.models import tiny

TOWER = r".*vision_model.*q_proj"
PROJECTOR = r".*connector.*proj"
LANGUAGE = r".*text_model.*v_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.idefics3(tmp_path_factory.mktemp("base"))


def adapter(base: Path, folder: Path, targets: str, *, is_trained: bool = True) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(base)
    made = get_peft_model(model, LoraConfig(r=2, target_modules=targets))
    torch.manual_seed(1)
    for name, weight in made.named_parameters():
        if "lora_B" in name and is_trained:
            torch.nn.init.normal_(weight, std=0.5)
    made.save_pretrained(folder)
    return folder


def opened(base: Path, adapter: Path | None):
    return PLUGIN.open(
        ModelFiles(str(base), adapter=None if adapter is None else str(adapter)),
        Params(),
        Machine(),
    )


@pytest.mark.parametrize("targets", [TOWER, PROJECTOR, LANGUAGE])
def test_an_adapter_of_any_part_changes_the_answer(base: Path, tmp_path: Path, targets: str):
    asked = [Request((user(ImagePart(0), "What is it?"),), (tiny.picture(),))]
    made = adapter(base, tmp_path, targets)
    with_it = opened(base, made).generate(asked, Sampling(24))

    assert with_it[0].error is None
    assert with_it != opened(base, None).generate(asked, Sampling(24))


def test_an_adapter_that_changes_nothing_stops_the_run(base: Path, tmp_path: Path):
    made = adapter(base, tmp_path, LANGUAGE, is_trained=False)

    with pytest.raises(StageError, match="changes nothing"):
        opened(base, made)


def test_modules_that_the_model_does_not_have_are_named(base: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    made = adapter(base, tmp_path, LANGUAGE)
    path = made / "adapter_model.safetensors"
    weights = {name.replace("text_model", "old_model"): w for name, w in load_file(path).items()}
    save_file(weights, path)

    with pytest.raises(StageError, match=r"2 modules .* model.old_model.layers.0.self_attn.v_proj"):
        opened(base, made)


def test_an_adapter_that_is_not_there_stops_the_run(base: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(StageError, match="cannot be opened"):
        opened(base, tmp_path / "empty")
