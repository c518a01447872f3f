"""Llama 3.2 Vision (Dubey et al. 2024): the text attends to the image, which has no tokens.

Its cross-attention mask depends on text and images together, so the processor makes whole batches.
"""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("mllama",),
    auto_class="AutoModelForImageTextToText",
    parts={
        "vision": ("model.vision_model",),
        "projector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    image_axis=None,
    not_in_vllm="vLLM gave its architecture up",
)
