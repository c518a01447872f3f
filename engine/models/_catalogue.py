"""Configs of well-known hub models, so that a plan has numbers before anything is downloaded.

Only fields that decide sizes. Each is held to the parameter count that is known of its weights
(tests/models/test_facts.py); that of LLaVA-NeXT to three digits alone, for its vocabulary is filled
up and was not seen. A config on this machine always comes before this table.
"""

from __future__ import annotations

from typing import Any

_CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
TOWERS = {"clip-vit-large-patch14-336": _CLIP_L_336}  # by the last part of their name
_LLAMA_3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
_LLAVA_NEXT_LLAMA_3 = {
    "model_type": "llava_next",
    "dtype": "bfloat16",
    "tie_word_embeddings": False,
    "vision_config": _CLIP_L_336,
    "text_config": {**_LLAMA_3_8B, "vocab_size": 128320},
}
_QWEN2_VL_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16}
_QWEN2_VL_2B = {
    "model_type": "qwen2_vl",
    "dtype": "bfloat16",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
    "vision_config": {**_QWEN2_VL_VISION, "hidden_size": 1536},
}
_QWEN2_VL_7B = {
    "model_type": "qwen2_vl",
    "dtype": "bfloat16",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32768,
    "vision_config": {**_QWEN2_VL_VISION, "hidden_size": 3584},
}
_QWEN2_5_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
_QWEN2_5_VL_3B = {
    "model_type": "qwen2_5_vl",
    "dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 128000,
    "vision_config": {**_QWEN2_5_VISION, "out_hidden_size": 2048},
}
_QWEN2_5_VL_7B = {
    **_QWEN2_VL_7B,
    "model_type": "qwen2_5_vl",
    "max_position_embeddings": 128000,
    "vision_config": {**_QWEN2_5_VISION, "out_hidden_size": 3584},
}
_LLAMA_3_2_11B_VISION = {
    "model_type": "mllama",
    "dtype": "bfloat16",
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_global_layers": 8,
        "attention_heads": 16,
        "image_size": 560,
        "patch_size": 14,
        "max_num_tiles": 4,
        "vision_output_dim": 7680,
    },
    "text_config": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
        "max_position_embeddings": 131072,
    },
}
_QWEN2_VL_PROCESSOR = {"min_pixels": 56 * 56, "max_pixels": 12845056}

CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-2B": _QWEN2_VL_2B,
    "Qwen/Qwen2-VL-2B-Instruct": _QWEN2_VL_2B,
    "Qwen/Qwen2-VL-7B-Instruct": _QWEN2_VL_7B,
    "Qwen/Qwen2.5-VL-3B-Instruct": _QWEN2_5_VL_3B,
    "Qwen/Qwen2.5-VL-7B-Instruct": _QWEN2_5_VL_7B,
    "llava-hf/llama3-llava-next-8b-hf": _LLAVA_NEXT_LLAMA_3,
    "Lin-Chen/open-llava-next-llama3-8b": _LLAVA_NEXT_LLAMA_3,  # once it is converted
    "AdaptLLM/visual-instruction-synthesizer": _LLAVA_NEXT_LLAMA_3,
    "meta-llama/Llama-3.2-11B-Vision": _LLAMA_3_2_11B_VISION,
    "meta-llama/Llama-3.2-11B-Vision-Instruct": _LLAMA_3_2_11B_VISION,
    "meta-llama/Meta-Llama-3-8B": {**_LLAMA_3_8B, "dtype": "bfloat16"},
    "meta-llama/Meta-Llama-3-8B-Instruct": {**_LLAMA_3_8B, "dtype": "bfloat16"},
}
ORIGINALS = ("Lin-Chen/open-llava-next-llama3-8b",)  # in the layout of the original LLaVA code
PROCESSORS: dict[str, dict[str, Any]] = {
    name: _QWEN2_VL_PROCESSOR for name in CONFIGS if name.startswith("Qwen/")
}
