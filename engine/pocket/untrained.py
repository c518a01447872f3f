"""Makes the folders `untrained_mllm` and `untrained_judge`: tokenizer and configs, no weights.

`python -m engine.pocket.untrained FOLDER` writes them anew; a test holds that the files that travel
with the package are what this code makes. The tokenizer is byte-level BPE trained on texts of the
general world only, so every word of a new domain can be written and none has a token of its own.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.pocket import captions, facts, shapes, tasks

VOCABULARY = 1024
SPECIAL_TOKENS = (
    "<pad>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",  # the Idefics3 processor asks for it
)
PAD_ID, USER_ID, _, END_ID, IMAGE_ID = range(5)
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|'+m['role']+'|>' }}"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for p in m['content'] %}"
    "{% if p['type']=='image' %}<image>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, LAYERS, HEADS, HEAD_DIM = 128, 4, 4, 32
SIDE_PX, PATCH_PX, SCALE_FACTOR = 64, 8, 2
IMAGE_TOKENS = (SIDE_PX // PATCH_PX // SCALE_FACTOR) ** 2
CONTEXT_TOKENS = 1024
_FIXED_TEXTS = (
    (
        "Describe the image. Answer with a precise response. Answer with an informative response.",
        400,
    ),
    ("Question: Informative answer: Precise answer: Consistent: Yes No Open", 400),
    ("So the answer is. Therefore, the answer is. In short:", 200),
)


def write(folder: Path) -> None:
    """Write both model folders, without weights, into `folder`."""
    from transformers import GenerationConfig

    tokenizer = _tokenizer()
    mllm, judge = folder / "untrained_mllm", folder / "untrained_judge"
    _processor(tokenizer).save_pretrained(mllm)
    _mllm_config().save_pretrained(mllm)
    tokenizer.save_pretrained(judge)
    _judge_config().save_pretrained(judge)
    for path in (mllm, judge):
        ends = GenerationConfig(bos_token_id=USER_ID, eos_token_id=END_ID, pad_token_id=PAD_ID)
        ends.save_pretrained(path)


def training_texts(num_scenes: int = 6000) -> Iterator[str]:
    """Yield what the tokenizer is trained on: general scenes, half of them under made-up names."""
    for index in range(num_scenes):
        rng = random.Random(f"tok{index}")
        scene = shapes.scene(7, "tokenizer", index)
        is_renamed = bool(index % 2)
        told = facts.renamed_facts(scene, rng) if is_renamed else facts.plain_facts(scene, rng)
        yield captions.caption(told, rng, is_scientific=is_renamed)
        makers = tasks.SEEDS if is_renamed else tasks.GENERAL
        for task in tasks.draw_tasks(told, rng, 3, makers):
            yield from (task.instruction, task.informative, task.precise)
    for text, times in _FIXED_TEXTS:
        yield from (text,) * times


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(training_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|user|>",
        eos_token="<|end|>",
        pad_token="<pad>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=CONTEXT_TOKENS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _processor(tokenizer: Any) -> Any:
    from transformers import Idefics3Processor
    from transformers.models.idefics3 import image_processing_pil_idefics3 as processing

    pictures = processing.Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": SIDE_PX},
        max_image_size={"longest_edge": SIDE_PX},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return Idefics3Processor(
        image_processor=pictures,
        tokenizer=tokenizer,
        image_seq_len=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def _text_settings(feed_forward: int) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": feed_forward,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": True,
        "pad_token_id": PAD_ID,
        "bos_token_id": USER_ID,
        "eos_token_id": END_ID,
        "initializer_range": 0.05,
        "max_position_embeddings": CONTEXT_TOKENS,
    }


def _mllm_config() -> Any:
    from transformers import Idefics3Config

    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
        "initializer_range": 0.05,
    }
    return Idefics3Config(
        vision_config=vision,
        text_config={"model_type": "llama", **_text_settings(feed_forward=320)},
        scale_factor=SCALE_FACTOR,
        image_token_id=IMAGE_ID,
        pad_token_id=PAD_ID,
        bos_token_id=USER_ID,
        eos_token_id=END_ID,
        tie_word_embeddings=True,
        initializer_range=0.05,
        architectures=["Idefics3ForConditionalGeneration"],
        dtype="float32",
    )


def _judge_config() -> Any:
    from transformers import LlamaConfig

    settings = _text_settings(feed_forward=352)
    return LlamaConfig(**settings, architectures=["LlamaForCausalLM"], dtype="float32")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
