"""LLaVA-NeXT (Liu et al. 2024): an image is cut into tiles, and its newline vector is learnt."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("llava_next",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector", "model.image_newline"),
        "language": ("model.language_model", "lm_head"),
    },
    stored_prefixes={
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "model.image_newline": "image_newline",
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
    },
)
