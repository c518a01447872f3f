from __future__ import annotations

from pathlib import Path

import pytest

from engine.backends import Choices, Likelihoods, ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.plan.stage import Machine
from engine.records import ImagePart, user
from tests.models import tiny, tiny_families

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


FEW_SHOT = "Yes or No? A red circle is round. Yes. A square is round. No. " * 3
LABELS = ("Y", "N", "O")


def judged(num: int = 6) -> list[Choices]:
    texts = [FEW_SHOT + "What about " + "a line" * n + "?" for n in range(num)]
    return [Choices(Request((user(text),), is_raw=True), LABELS) for text in texts]


def plain(folder: Path, asked: list[Choices]) -> list[list[float]]:
    """Score each prompt alone, with nothing but the model itself."""
    import torch
    from transformers import AutoTokenizer

    opened = session(folder)
    tokens = AutoTokenizer.from_pretrained(folder)
    found = []
    for one in asked:
        ids = tokens(one.request.turns[0].text, return_tensors="pt")
        with torch.inference_mode():
            row = opened._model(**ids).logits[0, -1].log_softmax(-1)
        found.append([float(row[tokens.convert_tokens_to_ids(label)]) for label in LABELS])
    return found


def qwen2(folder: Path) -> Path:
    """Write a random text-only Qwen2."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokens = tiny.tokenizer()
    torch.manual_seed(0)
    config = tiny.llama_text(tokens) | {"model_type": "qwen2"}
    Qwen2ForCausalLM(Qwen2Config(**config)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def family(name: str, folder: Path) -> Path:
    return {"llama": tiny.llama, "idefics3": tiny.idefics3, "qwen2": qwen2}[name](folder)


@pytest.mark.parametrize("name", ["llama", "idefics3", "qwen2"])
def test_a_shared_beginning_changes_no_score(name: str, tmp_path: Path):
    made = family(name, tmp_path)
    opened = session(made, batch_size=4)
    found = opened.score(judged())

    assert len(opened._prefixes._kept) == 1
    for one, expected in zip(found, plain(made, judged()), strict=True):
        assert one.log_probs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "idefics3", "qwen2"])
def test_a_shared_beginning_changes_no_answer(name: str, tmp_path: Path):
    opened = session(family(name, tmp_path), batch_size=4)
    asked = [one.request for one in judged()]

    assert opened.generate(asked, GREEDY) == [opened.generate([one], GREEDY)[0] for one in asked]
    assert len(opened._prefixes._kept) == 1


def test_a_beginning_is_read_once_a_session(folder: Path):
    opened = session(folder, batch_size=2)
    opened.score(judged())
    before = dict(opened._prefixes._kept)
    opened.score(judged())

    assert opened._prefixes._kept == before


def test_prompts_with_an_image_in_front_are_scored_without_a_shared_beginning(folder: Path):
    opened = session(folder)
    pictures = [tiny.picture(color) for color in ("red", "green", "blue", "black")]
    asked = [
        Choices(Request((user(ImagePart(0), FEW_SHOT),), (picture,)), LABELS)
        for picture in pictures
    ]
    together = opened.score(asked)

    assert not opened._prefixes._kept
    for one, found in zip(asked, together, strict=True):
        assert found.log_probs == pytest.approx(opened.score([one])[0].log_probs, abs=1e-4)
    assert len({found.log_probs for found in together}) == len(pictures)


def test_rows_that_are_done_make_room_for_others(folder: Path):
    long = Sampling(40)
    many = [Request((user("?" * (n % 7) + str(n)),)) for n in range(24)]
    opened = session(folder, batch_size=6)
    read = opened._model.generate
    sizes = []

    def counted(**batch):
        sizes.append(len(batch["input_ids"]))
        return read(**batch)

    opened._model.generate = counted
    together = opened.generate(many, long)

    assert max(sizes) == 6
    assert len({one.num_new_tokens for one in together}) > 1
    assert len(sizes) > 4  # not only whole batches: rows joined where others had left
    assert together == [session(folder, batch_size=1).generate([one], long)[0] for one in many]


def test_a_batch_is_bounded_by_tokens(folder: Path):
    opened = session(folder, batch_tokens=200)
    read = opened._model.generate
    areas = []

    def measured(**batch):
        rows, width = batch["input_ids"].shape
        areas.append((rows, rows * (width + 12)))
        return read(**batch)

    opened._model.generate = measured
    many = [Request((user("?" * 10 * n),)) for n in range(12)]
    done = opened.generate(many, GREEDY)

    assert all(one.finish != "error" for one in done)
    assert all(rows == 1 or area <= 200 for rows, area in areas)
    assert max(rows for rows, _ in areas) > 1


def poisoned(opened, poison: str) -> None:
    """Let the model fail whenever it reads the poison."""
    read = opened._model.generate
    token = opened._kit.tokenizer.convert_tokens_to_ids(poison)

    def fail(**batch):
        if (batch["input_ids"] == token).any():
            raise ValueError("poison")
        return read(**batch)

    opened._model.generate = fail


def test_a_request_that_makes_the_model_fail_costs_only_itself(folder: Path):
    texts = ["one", "two words", "three whole words", "#", "five", "six it is", "and seven"]
    many = [Request((user(text),)) for text in texts]
    expected = session(folder).generate(many, GREEDY)
    opened = session(folder, batch_size=4)
    poisoned(opened, "#")
    done = opened.generate(many, GREEDY)

    assert [one.error for one in done] == [None] * 3 + ["ValueError: poison"] + [None] * 3
    assert done[:3] + done[4:] == expected[:3] + expected[4:]


def test_a_score_that_makes_the_model_fail_costs_only_itself(folder: Path):
    asked = judged()
    asked[2] = Choices(Request((user(FEW_SHOT + "#"),), is_raw=True), LABELS)
    opened = session(folder, batch_size=4)
    poisoned(opened, "#")
    done = opened.score(asked)

    assert [one.error is None for one in done] == [True, True, False, True, True, True]
    assert done[2] == Likelihoods((), error="ValueError: poison")


def test_a_small_nucleus_leaves_only_the_likeliest_token(folder: Path):
    hot = Sampling(12, temperature=1.5, seed=3)
    narrow = Sampling(12, temperature=1.5, seed=3, top_p=1e-6)
    opened = session(folder)

    assert opened.generate(requests(), narrow) == opened.generate(requests(), GREEDY)
    assert opened.generate(requests(), hot) != opened.generate(requests(), GREEDY)


def test_a_nucleus_keeps_the_fewest_tokens_that_reach_it():
    import torch

    from engine.backends._transformers_choice import within

    scores = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log()

    assert within(scores, 0.7).isinf().tolist() == [[True, False, False, True]]
    assert within(scores, 0.4).isinf().tolist() == [[True, False, True, True]]


def test_positions_of_three_parts_go_on_behind_a_shared_beginning():
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from engine.backends._transformers_prefix import Prefixes
    from engine.backends._transformers_rows import prefilled

    text = tiny.llama_text(tiny.tokenizer()) | {"model_type": "qwen2_vl_text"}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [4, 6, 6]}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 1}
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision))
    model.eval()
    start, rests = torch.randint(9, 200, (40,)), [torch.randint(9, 200, (n,)) for n in (9, 3)]
    ids = torch.stack([torch.cat([start, torch.zeros(9 - len(r)).long(), r]) for r in rests])
    mask = torch.stack([torch.cat([torch.ones(49 - len(r)), torch.ones(len(r))]) for r in rests])
    mask[1, 40:46] = 0
    batch = {"input_ids": ids, "attention_mask": mask.long(), "mm_token_type_ids": ids * 0}
    head = {"input_ids": start[None], "attention_mask": torch.ones(1, 40).long()}
    prefixes = Prefixes(lambda _: prefilled(model, head, 0).state["past_key_values"])

    with torch.inference_mode():
        rows = prefilled(model, {**batch, "past_key_values": prefixes.cache((1,), 2)}, 0)
        for number, rest in enumerate(rests):
            alone = model(input_ids=torch.cat([start, rest])[None]).logits[0, -1]
            torch.testing.assert_close(rows.logits[number], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "internvl", "gemma3"])
def test_rows_with_images_leave_and_join_in_every_family(name: str, tmp_path: Path):
    opened = session(getattr(tiny_families, name)(tmp_path), batch_size=2)
    opened._eos_ids = (*opened._eos_ids, *range(20, 60))  # so that rows end at different lengths
    asked = requests()
    together = opened.generate(asked, GREEDY)

    assert [one.error for one in together] == [None] * len(asked)
    assert together == [opened.generate([one], GREEDY)[0] for one in asked]
