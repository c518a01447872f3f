from __future__ import annotations

from pathlib import Path

import pytest

from engine.backends import ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.plan.stage import Machine
from engine.records import ImagePart, user
from tests.models import tiny

GREEDY = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.idefics3(tmp_path_factory.mktemp("idefics3"))


def session(folder: Path, **settings):
    return PLUGIN.open(ModelFiles(str(folder)), Params(**settings), Machine())


def requests(opens: str = "assistant") -> list[Request]:
    colors = ("red", "green", "blue", "black", "orange")
    made = [
        Request((user(ImagePart(0), "What is it" + "?" * 3 * n),), (tiny.picture(c),), opens)
        for n, c in enumerate(colors)
    ]
    return [*made, Request((user("No picture here."),), (), opens), made[0]]


def test_the_batch_size_does_not_change_what_is_written(folder: Path):
    one = session(folder, batch_size=1).generate(requests(), GREEDY)
    many = session(folder, batch_size=8).generate(requests(), GREEDY)

    assert many == one
    assert one[0] == one[-1]
    assert len({done.text for done in one}) > 1


def test_fast_inputs_equal_those_of_the_processor(folder: Path):
    import torch
    from transformers import AutoProcessor

    opened = session(folder)
    (request,) = requests()[:1]
    prompts = opened._prompts([request], GREEDY, {})
    batch = opened._batch([prompts[0]])
    processor = AutoProcessor.from_pretrained(folder)
    from engine.images import decode

    expected = processor(
        text=["<|user|><image>What is it<|end|><|assistant|>"],
        images=[[decode(request.images[0])]],
        return_tensors="pt",
    )

    for name in ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask"):
        assert torch.equal(batch[name], expected[name])


def test_a_broken_image_and_a_long_prompt_cost_only_themselves(folder: Path):
    good = requests()[0]
    broken = Request((user(ImagePart(0), "What?"),), (b"no picture",))
    long = Request((user("x" * 600),))
    opened = session(folder)

    alone = opened.generate([good], GREEDY)[0]
    done = opened.generate([broken, good, long], GREEDY)

    assert [one.finish == "error" for one in done] == [True, False, True]
    assert done[1] == alone
    assert done[2].error.startswith("needs ")


def test_a_text_with_the_image_marker_is_refused_not_shown_as_an_image(folder: Path):
    (done,) = session(folder).generate([Request((user("an <image> marker"),))], GREEDY)

    assert done.error == "the text holds the model's image marker `<image>`"


def test_sampling_depends_on_seed_and_request_alone(folder: Path):
    hot = Sampling(12, temperature=1.0, seed=1)
    one = session(folder, batch_size=1).generate(requests(), hot)
    many = session(folder, batch_size=8).generate(requests(), hot)
    other = session(folder).generate(requests(), Sampling(12, temperature=1.0, seed=2))

    assert many == one
    assert other != one


def test_an_open_user_turn_gives_whole_turns_only(folder: Path):
    for done in session(folder).generate(requests("user"), GREEDY):
        assert done.finish in ("stop", "length")
        assert "<|" not in "".join(turn.text for turn in done.turns)


def test_a_text_model_answers_a_raw_prompt(tmp_path: Path):
    opened = session(tiny.llama(tmp_path, template=None))
    (done,) = opened.generate([Request((user("Consistent:"),), is_raw=True)], GREEDY)

    assert done.num_prompt_tokens == len("Consistent:")
    assert done.finish in ("stop", "length")


def test_too_little_memory_halves_the_batch(folder: Path):
    import torch

    opened = session(folder, batch_size=8)
    expected = opened.generate(requests(), GREEDY)
    generate = opened._model.generate
    sizes = []

    def short_of_memory(**batch):
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError
        return generate(**batch)

    opened._model.generate = short_of_memory

    assert opened.generate(requests(), GREEDY) == expected
    assert sizes[0] == 6
    assert sizes[-1] <= 2
