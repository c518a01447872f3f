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
_SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "vision_use_head": False,
}
_QWEN2_VL_PROCESSOR = {"min_pixels": 56 * 56, "max_pixels": 12845056}
_QWEN3_VL_PROCESSOR = {"min_pixels": 256 * 256, "max_pixels": 4096 * 4096}


def _decoder(
    width: int, mlp_width: int, layers: int, heads: int, kv_heads: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": mlp_width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        **more,
    }


def _qwen3_vl(text: dict[str, Any], depth: int, width: int, mlp_width: int) -> dict[str, Any]:
    vision: dict[str, Any] = {"depth": depth, "hidden_size": width, "intermediate_size": mlp_width}
    vision["deepstack_visual_indexes"] = [8, 16, 24] if depth == 27 else [5, 11, 17]
    return {
        "model_type": "qwen3_vl",
        "dtype": "bfloat16",
        "tie_word_embeddings": text["hidden_size"] < 4096,
        "vision_config": {**vision, "num_heads": 16, "out_hidden_size": text["hidden_size"]},
        "text_config": {**text, "head_dim": 128, "max_position_embeddings": 262144},
    }


def _internvl3(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "internvl",
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "vision_config": {"attention_bias": True},
        "text_config": {"model_type": "qwen2", "vocab_size": 151674, **text},
    }


def _gemma3(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "gemma3",
        "dtype": "bfloat16",
        "vision_config": {**_SIGLIP_SO400M, "image_size": 896},
        "text_config": text,
    }


def _paligemma(kind: str, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "paligemma",
        "dtype": "bfloat16",
        "projection_dim": text["hidden_size"],
        "vision_config": {**_SIGLIP_SO400M, "image_size": 224},
        "text_config": {"model_type": kind, "vocab_size": 257216, **text},
    }


def _smolvlm(kind: str, text: dict[str, Any], vision: dict[str, Any], scale: int) -> dict[str, Any]:
    return {
        "model_type": kind,
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "scale_factor": scale,
        "vision_config": vision,
        "text_config": {"vocab_size": 49280, **text},
    }


_SIGLIP_BASE_512 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
_SIGLIP_384 = {**_SIGLIP_SO400M, "image_size": 384}
_SMOL_1_7B = _decoder(2048, 8192, 24, 32, 32, max_position_embeddings=16384)
_SMOL_135M = _decoder(576, 1536, 30, 9, 3, max_position_embeddings=8192)
_SMOL_360M = _decoder(960, 2560, 32, 15, 5, max_position_embeddings=8192)
_TILES_512 = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
_TILES_384 = {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}}

CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-2B": _QWEN2_VL_2B,
    "Qwen/Qwen2-VL-2B-Instruct": _QWEN2_VL_2B,
    "Qwen/Qwen2-VL-7B-Instruct": _QWEN2_VL_7B,
    "Qwen/Qwen2.5-VL-3B-Instruct": _QWEN2_5_VL_3B,
    "Qwen/Qwen2.5-VL-7B-Instruct": _QWEN2_5_VL_7B,
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3_vl(_decoder(2048, 6144, 28, 16, 8), 24, 1024, 4096),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3_vl(_decoder(2560, 9728, 36, 32, 8), 24, 1024, 4096),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3_vl(_decoder(4096, 12288, 36, 32, 8), 27, 1152, 4304),
    "OpenGVLab/InternVL3-1B-hf": _internvl3(_decoder(896, 4864, 24, 14, 2)),
    "OpenGVLab/InternVL3-2B-hf": _internvl3(_decoder(1536, 8960, 28, 12, 2)),
    "OpenGVLab/InternVL3-8B-hf": _internvl3(_decoder(3584, 18944, 28, 28, 4)),
    "HuggingFaceTB/SmolVLM-256M-Instruct": _smolvlm("idefics3", _SMOL_135M, _SIGLIP_BASE_512, 4),
    "HuggingFaceTB/SmolVLM-500M-Instruct": _smolvlm("idefics3", _SMOL_360M, _SIGLIP_BASE_512, 4),
    "HuggingFaceTB/SmolVLM-Instruct": _smolvlm(
        "idefics3", {**_SMOL_1_7B, "vocab_size": 49155}, _SIGLIP_384, 3
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": _smolvlm("smolvlm", _SMOL_1_7B, _SIGLIP_384, 3),
    "google/gemma-3-4b-it": _gemma3(_decoder(2560, 10240, 34, 8, 4)),
    "google/gemma-3-12b-it": _gemma3(_decoder(3840, 15360, 48, 16, 8)),
    "google/gemma-3-27b-it": _gemma3(_decoder(5376, 21504, 62, 32, 16, head_dim=128)),
    "google/paligemma-3b-pt-224": _paligemma("gemma", _decoder(2048, 16384, 18, 8, 1)),
    "google/paligemma2-3b-pt-224": _paligemma("gemma2", _decoder(2304, 9216, 26, 8, 4)),
    "llava-hf/llama3-llava-next-8b-hf": _LLAVA_NEXT_LLAMA_3,
    "Lin-Chen/open-llava-next-llama3-8b": _LLAVA_NEXT_LLAMA_3,  # once it is converted
    "AdaptLLM/visual-instruction-synthesizer": _LLAVA_NEXT_LLAMA_3,
    "meta-llama/Llama-3.2-11B-Vision": _LLAMA_3_2_11B_VISION,
    "meta-llama/Llama-3.2-11B-Vision-Instruct": _LLAMA_3_2_11B_VISION,
    "meta-llama/Meta-Llama-3-8B": {**_LLAMA_3_8B, "dtype": "bfloat16"},
    "meta-llama/Meta-Llama-3-8B-Instruct": {**_LLAMA_3_8B, "dtype": "bfloat16"},
}
ORIGINALS = ("Lin-Chen/open-llava-next-llama3-8b",)  # in the layout of the original LLaVA code
_TILES = {
    "HuggingFaceTB/SmolVLM-256M-Instruct": _TILES_512,
    "HuggingFaceTB/SmolVLM-500M-Instruct": _TILES_512,
    "HuggingFaceTB/SmolVLM-Instruct": _TILES_384,
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": _TILES_384,
}
PROCESSORS: dict[str, dict[str, Any]] = {
    **{name: _QWEN2_VL_PROCESSOR for name in CONFIGS if name.startswith("Qwen/Qwen2")},
    **{name: _QWEN3_VL_PROCESSOR for name in CONFIGS if name.startswith("Qwen/Qwen3")},
    **_TILES,
}
