"""Gemma 3 (Gemma team 2025): tokens of an image attend to each other in both directions."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("gemma3",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    marks_image_tokens="token_type_ids",
    has_own_token=True,
    stored_prefixes={
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
    },
)
