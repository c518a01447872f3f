"""SmolVLM (Marafioti et al. 2025): the architecture of Idefics3, made small, with videos."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("smolvlm",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.vision_model",),
        "projector": ("model.connector",),
        "language": ("model.text_model", "lm_head"),
    },
    image_axis=1,
)
