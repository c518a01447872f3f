"""A stand-in takes as many tokens for an image as the real model, and answers every call."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.backends import Choices, ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.images import decode
from engine.models._inputs import InputMaker
from engine.models._known import ModelFinder
from engine.models._loading import open_kit
from engine.plan.stage import Machine
from engine.records import ImagePart, assistant, user
from engine.rehearsal import models
from tests.models import tiny

SEEING = (
    "Qwen/Qwen2-VL-2B-Instruct",
    "Qwen/Qwen2.5-VL-3B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "llava-hf/llama3-llava-next-8b-hf",
    "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "OpenGVLab/InternVL3-2B-hf",
    "HuggingFaceTB/SmolVLM-256M-Instruct",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    "google/gemma-3-4b-it",
    "google/paligemma-3b-pt-224",
)
SIZES = ((640, 480), (100, 37), (300, 900))


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # PaliGemma's processor
@pytest.mark.parametrize("name", SEEING)
def test_an_image_takes_the_tokens_that_it_takes_in_the_real_model(name: str, tmp_path: Path):
    known = ModelFinder().find(name)
    assert known is not None
    models.write(known, tmp_path, has_template=True)
    kit = open_kit(str(tmp_path))
    pictures = {str(size): tiny.picture("red", size) for size in SIZES}
    inputs = InputMaker(kit, pictures.__getitem__)
    for size, digest in zip(SIZES, pictures, strict=True):
        picture = decode(pictures[digest])
        made = kit.processor(text=[kit.image_marker], images=[[picture]])
        found = sum(int(i) == kit.image_token_id for i in made["input_ids"][0])
        assert found == known.image(*size).tokens, size
        assert inputs.size_of(digest) == size


@pytest.mark.filterwarnings("ignore:.hidden_state. is depr:FutureWarning")  # Mllama's own
@pytest.mark.parametrize("name", SEEING)
def test_a_stand_in_answers_scores_and_goes_on_with_a_dialogue(name: str, tmp_path: Path):
    known = ModelFinder().find(name)
    assert known is not None
    models.write(known, tmp_path, has_template=True)
    session = PLUGIN.open(ModelFiles(str(tmp_path)), Params(), Machine())
    shown = Request((user(ImagePart(0), "What is it?"), assistant("A cell.")), (tiny.picture(),))
    more = Request((*shown.turns, user("Sure?")), shown.images)

    assert session.generate([more], Sampling(4))[0].error is None
    assert session.score([Choices(more, (" Yes", " No"))])[0].error is None
    opened = session.generate([Request(shown.turns, shown.images, "user")], Sampling(4))[0]
    assert opened.error == (
        "the model's format does not tell where a question begins" if "pali" in name else None
    )


def test_a_text_model_is_a_base_llm_or_a_chat_model(tmp_path: Path):
    known = ModelFinder().find("meta-llama/Meta-Llama-3-8B")
    assert known is not None
    models.write(known, tmp_path / "base", has_template=False)
    models.write(known, tmp_path / "chat", has_template=True)

    assert not open_kit(str(tmp_path / "base")).chat.has_template
    assert open_kit(str(tmp_path / "chat")).chat.opening == (
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
