"""What a node takes of a device, and what its numbers have in common."""

from __future__ import annotations

from typing import NamedTuple

from engine.models._facts import Architecture
from engine.models._image_tokens import ImageTokens
from engine.models._known import KnownModel
from engine.plan.estimate import Figure

TYPICAL_PX = (640, 480)
SMALLEST_FOR_THEORY = 100_000_000  # parameters: smaller models wait for kernels, not for arithmetic
TERA, GIGA, HOUR_S = 1e12, 1e9, 3600.0


class Load(NamedTuple):
    """What one node takes; None where nothing is known."""

    tokens: Figure | None = None
    gpu_memory_gb: Figure | None = None
    wall_h: Figure | None = None
    disk_gb: Figure | None = None
    num_devices: int = 1
    note: str = ""


IDLE = Load()


def image_tokens(model: KnownModel) -> tuple[ImageTokens, str]:
    """Return what an image takes in this model, and on what assumption."""
    found = model.image(*TYPICAL_PX)
    if model.has_fixed_images:
        return found, f"{found.tokens} tokens an image" if found.tokens else ""
    wide, high = TYPICAL_PX
    return found, f"assumed: images of {wide} x {high}, {found.tokens:,} tokens each"


def matrices(model: Architecture) -> float:
    """Return the parameters that a token is multiplied with: all but an embedding of its own."""
    text = model.language
    table = 0 if text.is_tied else text.vocab * text.width
    return float(model.counts["language"] - table + model.counts.get("projector", 0))


def is_too_small(model: Architecture) -> bool:
    """Tell whether a model is too small for its arithmetic to decide how long it takes."""
    return model.num_parameters < SMALLEST_FOR_THEORY


def joined_words(*parts: str) -> str:
    """Return the parts of a basis that say something."""
    return "; ".join(part for part in parts if part)
