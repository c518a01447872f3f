"""Tiny random models of the families that see videos as well, or that mark their image tokens.

They are written without torchvision: the image processor, the tokenizer and the template by
themselves, as the files of a released checkpoint are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.models import tiny

BASIC = ("<pad>", "<|user|>", "<|assistant|>", "<|end|>")


def _words(special: Sequence[str], marker: str, **roles: str) -> Any:
    """Return a tokenizer whose template writes `marker` for an image."""
    made = tiny.tokenizer((*BASIC, *special), tiny.TEMPLATE.replace("<image>", marker))
    made.add_special_tokens({}, replace_extra_special_tokens=False)
    for role, token in roles.items():
        made._special_tokens_map[role] = token
        made.init_kwargs[role] = token
    return made


def _write(folder: Path, model: Any, pictures: Any, words: Any, processor: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    pictures.save_pretrained(folder)
    words.save_pretrained(folder)
    if processor:
        (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def _text(words: Any, kind: str, **more: Any) -> dict[str, Any]:
    return {**tiny.llama_text(words), "model_type": kind, **more}


def _qwen_pictures(patch_px: int) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )

    side = 2 * patch_px
    return Qwen2VLImageProcessorPil(
        patch_size=patch_px, merge_size=2, min_pixels=4 * side**2, max_pixels=16 * side**2
    )


def _qwen_words() -> Any:
    special = ("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>")
    return _words(special, "<|vision_start|><|image_pad|><|vision_end|>")


def _qwen_ids(words: Any) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: words.convert_tokens_to_ids(token) for name, token in names.items()}


def qwen2_vl(folder: Path) -> Path:
    """Write a random Qwen2-VL."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    words = _qwen_words()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    config = Qwen2VLConfig(
        text_config=_text(words, "qwen2_vl_text", rope_parameters=rope),
        vision_config={
            **{"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 1, "patch_size": 8},
            "spatial_merge_size": 2,
        },
        **_qwen_ids(words),
    )
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config)
    return _write(folder, model, _qwen_pictures(8), words, {})


def qwen2_5_vl(folder: Path) -> Path:
    """Write a random Qwen2.5-VL."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    words = _qwen_words()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    config = Qwen2_5_VLConfig(
        text_config=_text(words, "qwen2_5_vl_text", rope_parameters=rope),
        vision_config={
            **{"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 1},
            **{"patch_size": 8, "out_hidden_size": 32, "spatial_merge_size": 2},
            **{"window_size": 32, "fullatt_block_indexes": [1]},
        },
        **_qwen_ids(words),
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    return _write(folder, model, _qwen_pictures(8), words, {})


def qwen3_vl(folder: Path) -> Path:
    """Write a random Qwen3-VL."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    words = _qwen_words()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5]}
    rope["mrope_interleaved"] = True  # vLLM asks, transformers takes it for granted
    config = Qwen3VLConfig(
        text_config=_text(words, "qwen3_vl_text", rope_parameters=rope),
        vision_config={
            **{"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 1},
            **{"patch_size": 8, "out_hidden_size": 32, "spatial_merge_size": 2},
            **{"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        },
        tie_word_embeddings=True,
        **_qwen_ids(words),
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    return _write(folder, model, _qwen_pictures(8), words, {})


def internvl(folder: Path) -> Path:
    """Write a random InternVL of 32-pixel tiles, 4 tokens each."""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
    )

    special = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    words = _words(
        special,
        "<IMG_CONTEXT>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config={
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 1, "image_size": [32, 32], "patch_size": [8, 8]},
        },
        text_config=_text(words, "qwen2"),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    pictures = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(config)
    settings = {"image_seq_length": 4, "processor_class": "InternVLProcessor"}
    return _write(folder, model, pictures, words, settings)


def smolvlm(folder: Path) -> Path:
    """Write a random SmolVLM of 32-pixel tiles, 4 tokens each."""
    import torch
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm.image_processing_pil_smolvlm import (
        SmolVLMImageProcessorPil,
    )

    rows = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
    special = ("<image>", "<fake_token_around_image>", "<global-img>", "<video>", *rows)
    words = _words(special, "<image>")
    half = [0.5, 0.5, 0.5]
    pictures = SmolVLMImageProcessorPil(
        do_image_splitting=True,
        size={"longest_edge": 64},
        max_image_size={"longest_edge": 32},
        image_mean=half,
        image_std=half,
    )
    config = SmolVLMConfig(
        vision_config={
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 1, "image_size": 32, "patch_size": 8},
        },
        text_config=tiny.llama_text(words),
        scale_factor=2,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(config)
    return _write(folder, model, pictures, words, {"image_seq_len": 4})


def gemma3(folder: Path) -> Path:
    """Write a random Gemma 3 of 32-pixel images, 4 tokens each."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    special = ("<start_of_image>", "<image_soft_token>", "<end_of_image>")
    words = _words(
        special,
        "<start_of_image>",
        boi_token="<start_of_image>",
        image_token="<image_soft_token>",
        eoi_token="<end_of_image>",
    )
    words.add_tokens(["\n" * count for count in range(1, 5)])  # vLLM asks for them by name
    config = Gemma3Config(
        vision_config={
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 1, "image_size": 32, "patch_size": 8},
        },
        text_config=_text(words, "gemma3_text", sliding_window=64, layer_types=None),
        mm_tokens_per_image=4,
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
    )
    pictures = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config)
    # Its class begins with zeros, which no image gets through.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    settings = {"image_seq_length": 4, "processor_class": "Gemma3Processor"}
    return _write(folder, model, pictures, words, settings)


def paligemma(folder: Path) -> Path:
    """Write a random PaliGemma of 32-pixel images, 16 tokens each, without a chat template."""
    import torch
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    words = tiny.tokenizer(("<pad>", "<eos>", "<bos>", "<image>"), None)
    words.bos_token, words.eos_token = "<bos>", "<eos>"
    words.add_tokens(["\n"])  # vLLM asks for it by name
    config = PaliGemmaConfig(
        vision_config={
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 1, "image_size": 32, "patch_size": 8},
            **{"vision_use_head": False},
        },
        text_config=_text(words, "gemma", vocab_size=2048),  # for places in an image
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vocab_size=2048,
        projection_dim=32,
        hidden_size=32,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    pictures = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config)
    return _write(folder, model, pictures, words, {"processor_class": "PaliGemmaProcessor"})


MAKERS = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "paligemma": paligemma,
}
