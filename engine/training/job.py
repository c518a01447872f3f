"""What to train and how, and the model before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.models._loading import ModelKit, load_weights, open_kit, random_weights
from engine.recipe.model import LoraSpec, TrainSpec
from engine.training import parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train, and how."""

    name: str  # the model as the recipe writes it
    model: str  # folder or hub id
    revision: str | None
    trust_remote_code: bool
    starts_random: bool  # from the config alone
    parts: tuple[str, ...]
    lora: LoraSpec | None  # None: full fine-tuning
    training: TrainSpec

    def kit(self) -> ModelKit:
        """Open the model without its weights."""
        return open_kit(self.model, self.revision, self.trust_remote_code)


def start(kit: ModelKit, job: Job, seed: int, device: str) -> Any:
    """Return the model before its first step, in float32, with the right parameters free."""
    import torch

    if job.starts_random:
        model = random_weights(kit, seed=seed, device=device)
    else:
        model = load_weights(kit, dtype=torch.float32, device=device)
    if job.lora is None:
        parts.freeze(model, kit.family, job.parts)
        return model
    return parts.with_lora(model, kit.family, job.parts, job.lora, seed)
