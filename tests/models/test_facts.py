"""Parameter counts by formula against the modules that transformers builds, on no memory at all."""

from __future__ import annotations

from typing import Any

import pytest

from engine import plugin
from engine.models import _catalogue, _facts

# The hub could not be reached when this was written: totals as they are known for these weights.
# That the formula agrees with each to the last digit is the evidence for both.
PUBLISHED = {
    "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "OpenGVLab/InternVL3-1B-hf": 938_193_024,
    "OpenGVLab/InternVL3-2B-hf": 2_088_957_440,
    "OpenGVLab/InternVL3-8B-hf": 7_944_373_760,
    "HuggingFaceTB/SmolVLM-256M-Instruct": 256_484_928,
    "HuggingFaceTB/SmolVLM-500M-Instruct": 507_482_304,
    "HuggingFaceTB/SmolVLM-Instruct": 2_246_272_880,
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": 2_246_784_880,
    "google/gemma-3-4b-it": 4_300_079_472,
    "google/gemma-3-12b-it": 12_187_325_040,
    "google/gemma-3-27b-it": 27_432_406_640,
    "google/paligemma-3b-pt-224": 2_923_466_480,
    "google/paligemma2-3b-pt-224": 3_032_242_416,
    "meta-llama/Llama-3.2-11B-Vision-Instruct": 10_670_220_835,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
}
ROUGHLY = {  # the vocabulary is Llama 3's, filled up for the image token: not seen to the digit
    "llava-hf/llama3-llava-next-8b-hf": 8.35e9,
    "AdaptLLM/visual-instruction-synthesizer": 8.35e9,
    "Lin-Chen/open-llava-next-llama3-8b": 8.35e9,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 80,
    "pad_token_id": 0,
}
SEEN = {"hidden_size": 48, "intermediate_size": 72, "image_size": 32, "patch_size": 8}
SEEN_LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
QWEN_TEXT = {**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
TINY: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **TEXT},
    "llama, tied, biases": {
        "model_type": "llama",
        **TEXT,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama, wide heads": {"model_type": "llama", **TEXT, "head_dim": 32},
    "mistral": {"model_type": "mistral", **TEXT},
    "qwen2": {"model_type": "qwen2", **TEXT, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **TEXT, "head_dim": 24},
    "idefics3": {
        "model_type": "idefics3",
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {**SEEN, **SEEN_LAYERS},
        "scale_factor": 2,
        "pad_token_id": 0,
    },
    "smolvlm": {
        "model_type": "smolvlm",
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {**SEEN, **SEEN_LAYERS},
        "scale_factor": 2,
        "pad_token_id": 0,
    },
    "llava_next": {
        "model_type": "llava_next",
        "text_config": {"model_type": "mistral", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", **SEEN, **SEEN_LAYERS},
    },
    "llava_next, two layers read": {
        "model_type": "llava_next",
        "text_config": {"model_type": "qwen2", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", **SEEN, **SEEN_LAYERS},
        "vision_feature_layer": [-1, -2],
        "multimodal_projector_bias": False,
    },
    "qwen2_vl": {
        "model_type": "qwen2_vl",
        "text_config": {"model_type": "qwen2_vl_text", **QWEN_TEXT},
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
    },
    "qwen2_5_vl": {
        "model_type": "qwen2_5_vl",
        "text_config": {"model_type": "qwen2_5_vl_text", **QWEN_TEXT},
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
        "tie_word_embeddings": True,
    },
    "qwen3_vl": {
        "model_type": "qwen3_vl",
        "text_config": {"model_type": "qwen3_vl_text", **QWEN_TEXT, "head_dim": 24},
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 49,
            "deepstack_visual_indexes": [0, 1],
        },
    },
    "internvl": {
        "model_type": "internvl",
        "text_config": {"model_type": "qwen2", **TEXT},
        "vision_config": {**SEEN, **SEEN_LAYERS, "image_size": [32, 32], "patch_size": [8, 8]},
    },
    "internvl, untied, the large tower": {
        "model_type": "internvl",
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {
            **SEEN,
            **SEEN_LAYERS,
            "image_size": [32, 32],
            "patch_size": [8, 8],
            "norm_type": "rms_norm",
            "use_qk_norm": True,
            "attention_bias": True,
        },
        "tie_word_embeddings": False,
    },
    "gemma3": {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", **TEXT, "head_dim": 24},
        "vision_config": {**SEEN, **SEEN_LAYERS},
        "mm_tokens_per_image": 4,
    },
    "gemma3, without a head": {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", **TEXT},
        "vision_config": {**SEEN, **SEEN_LAYERS, "vision_use_head": False},
        "mm_tokens_per_image": 16,
    },
    "paligemma": {
        "model_type": "paligemma",
        "text_config": {"model_type": "gemma", **TEXT},
        "vision_config": {**SEEN, **SEEN_LAYERS, "vision_use_head": False},
        "projection_dim": 64,
    },
    "paligemma 2": {
        "model_type": "paligemma",
        "text_config": {"model_type": "gemma2", **TEXT, "head_dim": 24},
        "vision_config": {**SEEN, **SEEN_LAYERS},
        "projection_dim": 64,
    },
    "mllama": {
        "model_type": "mllama",
        "text_config": {**TEXT, "cross_attention_layers": [1]},
        "vision_config": {
            **SEEN,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            "intermediate_layers_indices": [0],
            "vision_output_dim": 96,
        },
    },
}
DEFAULTS = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "idefics3",
    "smolvlm",
    "llava_next",
    "qwen2_vl",
    "qwen3_vl",
    "internvl",
    "gemma3",
    "mllama",
)


def counted(config: dict[str, Any]) -> dict[str, int]:
    """Build the model without memory and count the parameters of each part."""
    import torch
    import transformers

    kind = config["model_type"]
    loaded = [plugin.load("models", name) for name in plugin.names("models")]
    family = next(one for one in loaded if kind in one.model_types)
    made = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = getattr(transformers, family.auto_class).from_config(made)
    counts = dict.fromkeys(family.parts, 0)
    for name, parameter in model.named_parameters():
        counts[family.part_of(name)] += parameter.numel()
    return counts


@pytest.mark.parametrize("name", TINY)
def test_every_part_of_every_family_is_counted_exactly(name: str):
    found = _facts.architecture(TINY[name])

    assert found is not None
    assert dict(found.counts) == counted(TINY[name])


@pytest.mark.parametrize("kind", DEFAULTS)
def test_what_a_config_leaves_out_has_the_default_of_its_class(kind: str):
    extra = {"pad_token_id": 0} if kind in ("idefics3", "smolvlm") else {}
    found = _facts.architecture({"model_type": kind, **extra})

    assert found is not None
    assert dict(found.counts) == counted({"model_type": kind, **extra})


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_models_have_the_published_number_of_parameters(name: str):
    found = _facts.architecture(_catalogue.CONFIGS[name])

    assert found is not None
    assert found.num_parameters == PUBLISHED[name]


def test_every_model_of_the_catalogue_has_a_published_twin():
    totals = set(PUBLISHED.values())
    for name, config in _catalogue.CONFIGS.items():
        found = _facts.architecture(config)
        assert found is not None
        if name in ROUGHLY:
            assert found.num_parameters == pytest.approx(ROUGHLY[name], rel=0.002), name
        else:
            assert found.num_parameters in totals, name


def test_the_families_and_the_formulas_know_the_same_types():
    loaded = [plugin.load("models", name) for name in plugin.names("models")]

    kinds = {kind for one in loaded for kind in one.model_types}
    assert kinds == set(_facts.known_kinds())


def test_another_type_has_no_formula():
    assert _facts.architecture({"model_type": "gpt2"}) is None
