"""Tiny random models of real classes, in folders as a user would have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.images import encode_png

SPECIAL = (
    "<pad>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
)
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(special: tuple[str, ...] = SPECIAL, template: str | None = TEMPLATE) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*special, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<|end|>",
        additional_special_tokens=list(special),
        model_max_length=512,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def llama_text(tokens: Any, width: int = 32, layers: int = 2) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(width // 32, 1),
        "num_key_value_heads": max(width // 32, 1),
        "head_dim": 32,
        "vocab_size": len(tokens),
        "tie_word_embeddings": True,
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": tokens.pad_token_id,
        "eos_token_id": tokens.eos_token_id,
        "initializer_range": 0.2,
        "max_position_embeddings": 512,
    }


def idefics3(folder: Path, width: int = 32, layers: int = 2) -> Path:
    """Write a random Idefics3 of 64x64 images, 16 tokens each."""
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    tokens = tokenizer()
    half = [0.5, 0.5, 0.5]
    pictures = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": 64},
        max_image_size={"longest_edge": 64},
        image_mean=half,
        image_std=half,
    )
    processor = Idefics3Processor(
        image_processor=pictures, tokenizer=tokens, image_seq_len=16, chat_template=TEMPLATE
    )
    config = Idefics3Config(
        vision_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": max(width // 32, 1),
            "image_size": 64,
            "patch_size": 8,
            "initializer_range": 0.2,
        },
        text_config=llama_text(tokens, width, layers),
        scale_factor=2,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        pad_token_id=tokens.pad_token_id,
        eos_token_id=tokens.eos_token_id,
        bos_token_id=tokens.pad_token_id,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llama(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Write a random text-only model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = tokenizer(template=template)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**llama_text(tokens))).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def picture(color: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((8, 8, size[0] // 2, size[1] // 2), fill=color)
    return encode_png(image)
