from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import plugin
from engine.diagnostics import StageError
from engine.images import decode
from engine.models import family_of
from engine.models._inputs import InputMaker
from engine.models._loading import open_kit
from tests.models import tiny

VISION_SPECIAL = ("<pad>", "<|user|>", "<|assistant|>", "<|end|>", "<image>")


def tokens() -> Any:
    return tiny.tokenizer(VISION_SPECIAL)


def llava_next(folder: Path, *, is_tied: bool = False) -> Path:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    words = tokens()
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "image_size": 32,
        "patch_size": 8,
    }
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=tiny.llama_text(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[32, 64], [64, 32]],
        image_seq_length=16,
        tie_word_embeddings=is_tied,
    )
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=[[32, 64], [64, 32]],
    )
    processor = LlavaNextProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=tiny.TEMPLATE,
        num_additional_image_tokens=1,
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def mllama(folder: Path) -> Path:
    from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    special = ("<pad>", "<|user|>", "<|assistant|>", "<|end|>", "<|image|>", "<|python_tag|>")
    words = tiny.tokenizer(special, tiny.TEMPLATE.replace("<image>", "<|image|>"))
    words.bos_token = "<|user|>"
    text = {
        **tiny.llama_text(words),
        "model_type": "mllama_text_model",
        "cross_attention_layers": [1],
        "vocab_size": len(words) - 8,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 1,
        "image_size": 32,
        "patch_size": 8,
        "max_num_tiles": 2,
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        "intermediate_layers_indices": [0],
        "vision_output_dim": 64,
    }
    text["vocab_size"] = len(words)
    config = MllamaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
    )
    pictures = MllamaImageProcessorPil(size={"height": 32, "width": 32}, max_image_tiles=2)
    processor = MllamaProcessor(
        pictures, words, chat_template=tiny.TEMPLATE.replace("<image>", "<|image|>")
    )
    model = MllamaForConditionalGeneration(config)
    for name, gate in model.named_parameters():
        if name.endswith("gate"):
            gate.data.fill_(1.0)  # they begin closed: no image gets through
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def qwen2_vl() -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = {**tiny.llama_text(tokens()), "model_type": "qwen2_vl_text"}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [4, 6, 6]}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 1, "patch_size": 8}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision))


MAKERS = {"idefics3": tiny.idefics3, "llava_next": llava_next, "mllama": mllama}


@pytest.mark.parametrize("name", [*MAKERS, "qwen2_vl"])
def test_every_parameter_is_in_the_part_that_its_name_says(name: str, tmp_path: Path):
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    if name in MAKERS:
        model = AutoModelForImageTextToText.from_pretrained(MAKERS[name](tmp_path))
    else:
        model = qwen2_vl()
    family = plugin.load("models", name)
    names = [n for n, _ in model.named_parameters()]
    prefixes = [prefix for part in family.parts.values() for prefix in part]

    assert {family.part_of(n) for n in names} == {"vision", "projector", "language"}
    assert [n for n in names if not any(f"{n}.".startswith(f"{p}.") for p in prefixes)] == []


def test_the_merger_of_qwen2_vl_is_its_projector():
    family = plugin.load("models", "qwen2_vl")

    assert family.part_of("model.visual.merger.mlp.0.weight") == "projector"
    assert family.part_of("model.visual.blocks.0.norm1.weight") == "vision"


@pytest.mark.parametrize("name", ["idefics3", "llava_next"])
def test_fast_batches_equal_those_of_the_processor(name: str, tmp_path: Path):
    import torch

    kit = open_kit(str(MAKERS[name](tmp_path)))
    pictures = {
        "a": tiny.picture("red"),
        "b": tiny.picture("blue", (80, 40)),
        "c": tiny.picture("green", (40, 90)),
    }
    inputs = InputMaker(kit, pictures.__getitem__)
    inputs.learn(list(pictures))
    rows = [["a"], ["b"], ["c"]]
    fast = inputs.image_batch(rows)
    texts = [f"{kit.image_marker}What?"] * 3
    shown = [[decode(pictures[d])] for d in pictures]
    slow = kit.processor(text=texts, images=shown, padding=True, return_tensors="pt")

    for key, tensor in fast.items():
        assert torch.equal(tensor, slow[key]), key
    for number, digest in enumerate(pictures):
        (tokens_of_row,) = inputs.tokenize([inputs.expanded(digest) + "What?"])
        expected = slow["input_ids"][number][slow["attention_mask"][number] == 1]
        assert tokens_of_row.ids.tolist() == expected.tolist()


@pytest.mark.filterwarnings(
    "ignore:.hidden_state. is deprecated:FutureWarning"
)  # transformers' own
@pytest.mark.parametrize("name", ["llava_next", "mllama"])
def test_a_family_answers_and_trains(name: str, tmp_path: Path):
    from engine.backends import ModelFiles, Request, Sampling
    from engine.backends.transformers import PLUGIN, Params
    from engine.plan.stage import Machine
    from engine.records import ImagePart, user
    from tests.training import test_loop

    folder = MAKERS[name](tmp_path / "base")
    outputs = test_loop.train(tmp_path, test_loop.job(folder, num_train_epochs=8))
    made = str(outputs.path / "model")
    request = Request((user(ImagePart(0), "Colour?"),), (tiny.picture(size=(40, 70)),))
    plain = Request((user("Longer question without any image?"),))
    one = PLUGIN.open(ModelFiles(made), Params(batch_size=1), Machine())
    many = PLUGIN.open(ModelFiles(made), Params(batch_size=8), Machine())
    losses = test_loop.losses(outputs)
    sampling = Sampling(8)

    assert losses[-1] < losses[0]
    alone = one.generate([request, plain], sampling)
    assert [done.error for done in alone] == [None, None]
    assert many.generate([request, plain], sampling) == alone


def test_an_unknown_family_is_named_with_those_that_are_known():
    with pytest.raises(StageError) as caught:
        family_of("gpt2")

    assert "`gpt2`" in str(caught.value)
    assert "idefics3" in (caught.value.hint or "")
