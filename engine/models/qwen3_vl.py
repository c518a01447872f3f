"""Qwen3-VL (Qwen team 2025): several layers of the encoder feed several depths of the decoder."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("qwen3_vl",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.visual",),
        "projector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "language": ("model.language_model", "lm_head"),
    },
    marks_image_tokens="mm_token_type_ids",
)
