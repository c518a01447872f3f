"""Text-only decoders of the Llama kind: judges and writers that see no image."""

from __future__ import annotations

from engine.models import ModelFamily

PLUGIN = ModelFamily(
    version=1,
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    auto_class="AutoModelForCausalLM",
    parts={"language": ("model", "lm_head")},
    has_vision=False,
    image_axis=None,
)
