from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.backends import Choices, ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.images import decode
from engine.models import family_of
from engine.models._inputs import InputMaker
from engine.models._loading import open_kit
from engine.plan.stage import Machine
from engine.records import ImagePart, user
from tests.models import tiny
from tests.models.tiny_families import MAKERS
from tests.training import test_loop

PICTURES = {
    "a": tiny.picture("red"),
    "b": tiny.picture("blue", (80, 40)),
    "c": tiny.picture("green", (40, 90)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


every_family = pytest.mark.parametrize("name", MAKERS)


@every_family
def test_every_parameter_is_in_the_part_that_its_name_says(name: str, folders: dict[str, Path]):
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folders[name])
    family = family_of(model.config.model_type)
    names = [n for n, _ in model.named_parameters()]
    prefixes = [prefix for part in family.parts.values() for prefix in part]

    assert {family.part_of(n) for n in names} == {"vision", "projector", "language"}
    assert [n for n in names if not any(f"{n}.".startswith(f"{p}.") for p in prefixes)] == []


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # PaliGemma's processor
@every_family
def test_fast_inputs_equal_those_of_the_processor(name: str, folders: dict[str, Path]):
    import torch

    kit = open_kit(str(folders[name]))
    inputs = InputMaker(kit, PICTURES.__getitem__)
    inputs.learn(list(PICTURES))
    fast = inputs.image_batch([[digest] for digest in PICTURES])
    texts = [f"{kit.image_marker}What?"] * 3
    shown = [[decode(picture)] for picture in PICTURES.values()]
    slow = kit.processor(text=texts, images=shown, padding=True, return_tensors="pt")

    for key, tensor in fast.items():
        assert torch.equal(tensor, slow[key]), key
    asked = "<bos>What?\n" if kit.family.added_by_processor else "What?"
    for number, digest in enumerate(PICTURES):
        (tokens,) = inputs.tokenize([inputs.expanded(digest) + asked])
        expected = slow["input_ids"][number][slow["attention_mask"][number] == 1]
        assert tokens.ids.tolist() == expected.tolist()
        marks = kit.family.marks_image_tokens
        if marks:
            told = slow[marks][number][slow["attention_mask"][number] == 1]
            assert tokens.is_image.tolist() == (told == 1).tolist()


@every_family
def test_a_family_trains_and_what_it_learnt_is_read_back(
    name: str, folders: dict[str, Path], tmp_path: Path
):
    outputs = test_loop.train(tmp_path, test_loop.job(folders[name], num_train_epochs=8))
    losses = test_loop.losses(outputs)
    trained = PLUGIN.open(ModelFiles(str(outputs.path / "model")), Params(), Machine())
    request = Request((user(ImagePart(0), "Colour?"),), (tiny.picture(size=(40, 70)),))

    assert losses[-1] < losses[0]
    assert trained.generate([request], Sampling(8))[0].error is None


def requests() -> list[Request]:
    shown = [
        Request((user(ImagePart(0), "What is it" + "?" * 3 * n),), (picture,))
        for n, picture in enumerate(PICTURES.values())
    ]
    return [*shown, Request((user("Longer question without any image?"),))]


def opened(folder: Path, batch_size: int) -> Any:
    return PLUGIN.open(ModelFiles(str(folder)), Params(batch_size=batch_size), Machine())


@every_family
def test_a_family_answers_alike_in_any_batch(name: str, folders: dict[str, Path]):
    one, many = opened(folders[name], 1), opened(folders[name], 8)
    asked = [Choices(request, ("Y", "N")) for request in requests()]

    alone = one.generate(requests(), Sampling(8))
    assert [done.error for done in alone] == [None] * len(alone)
    assert many.generate(requests(), Sampling(8)) == alone
    for alone, together in zip(one.score(asked), many.score(asked), strict=True):
        assert together.log_probs == pytest.approx(alone.log_probs, abs=1e-4)


@every_family
def test_a_family_looks_at_its_image(name: str, folders: dict[str, Path]):
    asked = [
        Choices(Request((user(ImagePart(0), "What?"),), (picture,)), ("Y", "N"))
        for picture in (tiny.picture("red"), tiny.picture("blue"))
    ]
    red, blue = opened(folders[name], 2).score(asked)

    assert red.error is None
    assert red.log_probs != pytest.approx(blue.log_probs, abs=1e-6)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "smolvlm"])
def test_two_images_of_one_request_are_two(name: str, folders: dict[str, Path]):
    def scored(*colours: str) -> Any:
        turns = (user(ImagePart(0), "and", ImagePart(1), "What?"),)
        pictures = tuple(tiny.picture(colour) for colour in colours)
        return opened(folders[name], 2).score([Choices(Request(turns, pictures), ("Y", "N"))])[0]

    both, swapped = scored("red", "blue"), scored("blue", "red")

    assert both.error is None
    assert both.log_probs != pytest.approx(swapped.log_probs, abs=1e-6)
