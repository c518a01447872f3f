"""PaliGemma has no chat template and reads its prompt in both directions: against its processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.backends import ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.images import decode
from engine.models._inputs import InputMaker
from engine.models._loading import load_weights, open_kit
from engine.plan.stage import Machine
from engine.records import ImagePart, assistant, user
from engine.training.collate import collate
from engine.training.masks import examples
from tests.models import tiny
from tests.models.tiny_families import paligemma
from tests.training.rows import chat

PICTURE = tiny.picture("red")
QUESTION = user(ImagePart(0), "What is it?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paligemma(tmp_path_factory.mktemp("paligemma"))


def batch_of(folder: Path, *turns: Any) -> tuple[dict[str, Any], Any]:
    inputs = InputMaker(open_kit(str(folder)), lambda _: PICTURE)
    inputs.learn(["picture"])
    row = chat(*turns, images=("picture",))
    return collate(list(examples([row], inputs, 400, pytest.fail)), inputs)


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # its processor's own
def test_a_row_is_what_its_processor_makes_of_prefix_and_suffix(folder: Path):
    batch, labels = batch_of(folder, QUESTION, assistant("A red square."))
    processor = open_kit(str(folder)).processor
    made = processor(
        text=["<image>What is it?"],
        images=[[decode(PICTURE)]],
        suffix=["A red square."],
        return_tensors="pt",
    )
    width = made["input_ids"].shape[1]

    assert batch["input_ids"][0, :width].tolist() == made["input_ids"][0].tolist()
    assert batch["token_type_ids"][0, :width].tolist() == made["token_type_ids"][0].tolist()
    assert labels[0, :width].tolist() == made["labels"][0].tolist()


def test_a_prompt_sees_itself_whole_and_an_answer_only_what_comes_before(folder: Path):
    import torch

    batch, _ = batch_of(folder, QUESTION, assistant("A red square."))
    model = load_weights(open_kit(str(folder)), dtype=torch.float32, device="cpu").eval()
    answer = int((batch["token_type_ids"][0] == 1).int().argmax())

    def differs_before(place: int) -> bool:
        changed = {**batch, "input_ids": batch["input_ids"].clone()}
        changed["input_ids"][0, place] += 1
        with torch.no_grad():
            apart = model(**batch).logits - model(**changed).logits
        return bool(apart[0, :place].abs().max() > 1e-4)

    assert differs_before(answer - 2)
    assert not differs_before(answer + 3)


def test_images_of_a_later_question_stand_in_front(folder: Path):
    turns = (user("One?"), assistant("Yes."), QUESTION, assistant("Red."))
    pieces = open_kit(str(folder)).chat.render(turns).pieces

    text = "".join(piece.text for piece in pieces)
    assert text == "<image><bos>One?\nYes.<eos>What is it?\nRed.<eos>"


def test_prompts_that_begin_alike_are_answered_as_if_they_were_alone(folder: Path):
    long = "The same long beginning of every prompt. " * 4
    requests = [Request((user(f"{long}{number}?"),)) for number in range(6)]
    session = PLUGIN.open(ModelFiles(str(folder)), Params(batch_size=8), Machine())
    alone = [session.generate([request], Sampling(8))[0] for request in requests]

    assert session.generate(requests, Sampling(8)) == alone


def test_it_writes_no_dialogues_and_says_why(folder: Path):
    session = PLUGIN.open(ModelFiles(str(folder)), Params(), Machine())
    asked = Request((user("A caption."),), opens="user")

    (done,) = session.generate([asked], Sampling(8))
    assert done.error == "the model's format does not tell where a question begins"


def test_what_is_saved_says_its_format_itself(folder: Path, tmp_path: Path):
    kit = open_kit(str(folder))
    kit.processor.save_pretrained(tmp_path)

    assert (tmp_path / "chat_template.jinja").read_text() == kit.family.chat_template
