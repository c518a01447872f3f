from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.conversion import llava
from engine.conversion.settings import Tower
from tests.conversion import original
from tests.conversion.original import Reference

BEFORE, AFTER = "<|begin_of_text|>Look: ", "\nWhat is it?<|eot_id|>"
SHAPES = {
    "square": (64, 64),
    "tiny": (20, 20),  # all grids show it as well: the first of them counts
    "tiny and tall": (20, 30),
    "wide": (90, 41),
    "tall": (37, 80),
    "larger than the grids": (300, 210),
    "very wide": (400, 20),
    "very tall": (25, 300),
}


@dataclass
class Pair:
    """The original and what it was converted to."""

    reference: Reference
    kit: Any
    model: Any


def converted(folder: Path, checkpoint: Path, tower: Path) -> Path:
    named = Tower(f"openai/{tower.name}", tower)
    llava.convert(checkpoint, named, folder / "converted", shard_bytes=100_000)
    return folder / "converted"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return original.tower(tmp_path_factory.mktemp("tower") / original.TOWER)


@pytest.fixture(scope="module", params=["own tower", "named tower"])
def pair(
    request: pytest.FixtureRequest, tower: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    import torch

    from engine.models._loading import load_weights, open_kit

    folder = tmp_path_factory.mktemp("pair")
    own = tower if request.param == "own tower" else None
    checkpoint = original.checkpoint(folder / "original", own)
    kit = open_kit(str(converted(folder, checkpoint, tower)))
    model = load_weights(kit, dtype=torch.float32, device="cpu").eval()
    return Pair(Reference(checkpoint, tower), kit, model)


def picture(width: int, height: int) -> Any:
    """Return a picture of noise: no tile is like another."""
    import random

    from PIL import Image

    noise = random.Random(f"{width}x{height}").randbytes(width * height * 3)
    return Image.frombytes("RGB", (width, height), noise)


def logits(pair: Pair, image: Any) -> Any:
    import torch

    text = f"{BEFORE}{pair.kit.image_marker}{AFTER}"
    made = pair.kit.processor(
        images=image, text=text, add_special_tokens=False, return_tensors="pt"
    )
    with torch.no_grad():
        return pair.model(**made).logits[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_converted_checkpoint_computes_what_the_original_does(shape: str, pair: Pair):
    import torch

    image = picture(*SHAPES[shape])
    expected = pair.reference.logits(BEFORE, image, AFTER)
    found = logits(pair, image)
    known = expected.shape[1]

    assert expected.std() > 0.5  # far more than the tolerance
    assert found.shape[0] == expected.shape[0]
    torch.testing.assert_close(found[:, :known], expected, atol=1e-4, rtol=0)


def test_a_new_token_is_as_likely_as_the_mean_of_all_and_never_the_likeliest(pair: Pair):
    import torch

    found = logits(pair, picture(50, 50))
    known = len(pair.reference.tokenizer)
    old, new = found[:, :known], found[:, known:]

    torch.testing.assert_close(new, old.mean(dim=1, keepdim=True).expand_as(new), atol=1e-4, rtol=0)
    assert (new.max(dim=1).values < old.max(dim=1).values).all()


def test_embeddings_grow_for_the_image_token_to_a_multiple_of_64(pair: Pair):
    kit, known = pair.kit, len(pair.reference.tokenizer)

    assert kit.text_config.vocab_size % 64 == 0
    assert 0 < kit.text_config.vocab_size - known <= 64
    assert kit.image_marker == "<image>"
    assert kit.config.image_token_index == kit.tokenizer.convert_tokens_to_ids("<image>") == known
    assert pair.model.get_input_embeddings().weight.shape[0] == kit.text_config.vocab_size


def test_llama_3_grows_to_the_128320_rows_of_the_released_models():
    from engine.models._llava_original import padded_rows

    assert padded_rows(128256 + 2) == 128320


def test_weights_are_stored_under_the_names_of_the_released_models(pair: Pair):
    names = set(original.load(Path(pair.kit.path)))
    heads = {".".join(name.split(".")[:2]) for name in names}

    assert heads == {
        "image_newline",
        "language_model.lm_head",
        "language_model.model",
        "multi_modal_projector.linear_1",
        "multi_modal_projector.linear_2",
        "vision_tower.vision_model",
    }
    assert "vision_tower.vision_model.embeddings.position_ids" not in names


def test_every_stored_weight_is_read_and_none_is_made_up(pair: Pair):
    import transformers

    _, found = transformers.LlavaNextForConditionalGeneration.from_pretrained(
        pair.kit.path, output_loading_info=True
    )

    assert {kind: names for kind, names in found.items() if names} == {}


@pytest.mark.parametrize("kind", ["bin", "bin in shards"])
def test_pickled_weights_give_the_same_model(kind: str, tower: Path, tmp_path: Path):
    import torch

    one = original.checkpoint(tmp_path / "one", tower)
    other = original.checkpoint(tmp_path / "other", tower, kind=kind)
    first = original.load(converted(tmp_path / "of one", one, tower))
    second = original.load(converted(tmp_path / "of other", other, tower))

    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_converting_twice_gives_equal_files(tower: Path, tmp_path: Path):
    checkpoint = original.checkpoint(tmp_path / "original")
    made = [converted(tmp_path / name, checkpoint, tower) for name in ("one", "other")]
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in made)

    assert first == second


def test_half_precision_stays_as_it_is_to_the_bit(tower: Path, tmp_path: Path):
    import torch

    checkpoint = original.checkpoint(tmp_path / "original", tower)
    before = {name: value.bfloat16() for name, value in original.load(checkpoint).items()}
    for path in checkpoint.glob("model*"):
        path.unlink()
    original.save(checkpoint, before, "safetensors")
    after = original.load(converted(tmp_path, checkpoint, tower))
    rows = before["model.embed_tokens.weight"].shape[0]

    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert torch.equal(
        after["language_model.model.layers.1.mlp.up_proj.weight"],
        before["model.layers.1.mlp.up_proj.weight"],
    )
    assert torch.equal(
        after["language_model.model.embed_tokens.weight"][:rows],
        before["model.embed_tokens.weight"],
    )


def test_a_tied_checkpoint_stays_tied(tower: Path, tmp_path: Path):
    from engine.models._loading import load_weights, open_kit

    checkpoint = original.checkpoint(tmp_path / "original", tower, tie_word_embeddings=True)
    original.rewrite(checkpoint, lambda weights: weights.pop("lm_head.weight"))
    kit = open_kit(str(converted(tmp_path, checkpoint, tower)))
    model = load_weights(kit, dtype="float32", device="cpu")

    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert kit.config.tie_word_embeddings


def test_how_to_sample_is_not_taken_over(tower: Path, tmp_path: Path):
    checkpoint = original.checkpoint(tmp_path / "original", tower)
    written = {"eos_token_id": [2, 4], "temperature": 0.9, "top_p": 0.6}  # refused when written
    (checkpoint / "generation_config.json").write_text(json.dumps(written))
    made = converted(tmp_path, checkpoint, tower)
    found = json.loads((made / "generation_config.json").read_text())

    assert found["eos_token_id"] == [2, 4]
    assert found["bos_token_id"] == 0  # of its config.json
    assert not found.keys() & {"temperature", "top_p"}


PROMPTS: dict[str, tuple[tuple[str, ...], dict[str, str], str, str]] = {
    "llama 3": (
        original.LLAMA_3,
        {},
        "<|begin_of_text|><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using natural "
        "language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA cat.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "vicuna": (
        ("<s>", "</s>"),
        {},
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions. "
        "USER: <image> \nWhat? ASSISTANT: A cat.</s>USER: Where? ",
        "ASSISTANT:",
    ),
    "mistral": (
        ("<s>", "</s>"),
        {"model_type": "llava_mistral"},
        "[INST] <image> \nWhat? [/INST] A cat.</s>[INST] Where? [/INST]",
        "",
    ),
}


@pytest.mark.parametrize("chat", PROMPTS)
def test_a_conversation_is_written_as_the_original_writes_it(
    chat: str, tower: Path, tmp_path: Path
):
    from engine.models._loading import open_kit
    from engine.records import ImagePart, assistant, user

    special, changes, told, opening = PROMPTS[chat]
    checkpoint = original.checkpoint(tmp_path / "o", special=special, **changes)
    kit = open_kit(str(converted(tmp_path, checkpoint, tower)))
    turns = [user(ImagePart(0), "What?"), assistant("A cat."), user("Where?")]
    pieces = kit.chat.prompt(turns, "assistant")

    assert "".join(piece.text for piece in pieces) == told + opening
    assert [piece.image for piece in pieces if piece.image is not None] == [0]
    assert kit.tokenizer.chat_template == kit.processor.chat_template


def test_a_text_around_an_image_is_cut_into_the_tokens_of_the_original(tower: Path, tmp_path: Path):
    import torch
    from transformers import AutoTokenizer

    from engine.models._loading import load_weights, open_kit
    from engine.records import ImagePart, user

    checkpoint = original.checkpoint(tmp_path / "original", tower, special=("<s>", "</s>"))
    kit = open_kit(str(converted(tmp_path, checkpoint, tower)))
    pieces = kit.chat.prompt([user(ImagePart(0), "What is it?")], "assistant")
    text = "".join(piece.text for piece in pieces)
    before, after = text.replace("<image> ", "<image>").split("<image>")
    image = picture(50, 40)
    made = kit.processor(images=image, text=text, add_special_tokens=False, return_tensors="pt")
    ids = made["input_ids"][0].tolist()
    plain = AutoTokenizer.from_pretrained(checkpoint)
    told = [plain(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
    model = load_weights(kit, dtype=torch.float32, device="cpu").eval()
    with torch.no_grad():
        found = model(**made).logits[0]
    expected = Reference(checkpoint, tower).logits(before, image, after)

    assert after == "\nWhat is it? ASSISTANT:"
    assert [i for i in ids if i != kit.config.image_token_index] == [*told[0], *told[1]]
    torch.testing.assert_close(found[:, : expected.shape[1]], expected, atol=1e-4, rtol=0)


def test_a_prompt_begins_with_two_tokens_as_in_training(pair: Pair):
    from engine.models._inputs import InputMaker
    from engine.records import user

    maker = InputMaker(pair.kit, lambda digest: b"")
    text, _ = maker.text_of(pair.kit.chat.prompt([user("What?")], "assistant"), [])
    (tokens,) = maker.tokenize([text])

    assert tokens.ids[:2].tolist() == [pair.kit.tokenizer.bos_token_id] * 2
    assert tokens.ids[2] == pair.kit.tokenizer.convert_tokens_to_ids("<|start_header_id|>")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_holds_a_shard_and_not_the_checkpoint(tower: Path, tmp_path: Path):
    import torch

    def grow(weights: dict[str, Any]) -> None:
        weights["model.mm_projector.2.weight"] = torch.zeros(64, 64)
        for number in range(2):
            for part, shape in {"gate": (wide, 64), "up": (wide, 64), "down": (64, wide)}.items():
                weights[f"model.layers.{number}.mlp.{part}_proj.weight"] = torch.ones(shape)

    wide = 150_000  # 38 MB a matrix
    checkpoint = original.checkpoint(tmp_path / "original", tower)
    original.rewrite(checkpoint, grow, intermediate_size=wide)
    named = Tower(f"openai/{tower.name}", tower)
    peaks = [anonymous_mb()]
    written = llava.convert(
        checkpoint,
        named,
        tmp_path / "converted",
        lambda done, total: peaks.append(anonymous_mb()),
        shard_bytes=50_000_000,
    )

    assert written.num_bytes > 230_000_000
    assert max(peaks) - peaks[0] < 110


def anonymous_mb() -> float:
    """Return the memory of this process that is no mapped file."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024
