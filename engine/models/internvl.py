"""InternVL (Zhu et al. 2025, the Hugging Face layout): an image is cut into tiles of one size."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("internvl",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    image_options={"crop_to_patches": True},
)
