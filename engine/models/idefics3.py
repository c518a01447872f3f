"""Idefics3 (Laurencon et al. 2024), also the class of the embedded pocket models."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("idefics3",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.vision_model",),
        "projector": ("model.connector",),
        "language": ("model.text_model", "lm_head"),
    },
    image_axis=1,
)
