"""Qwen2-VL and Qwen2.5-VL (Wang et al. 2024): images of any size, packed without padding."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("qwen2_vl", "qwen2_5_vl"),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.visual",),
        "projector": ("model.visual.merger",),
        "language": ("model.language_model", "lm_head"),
    },
    marks_image_tokens="mm_token_type_ids",
)
