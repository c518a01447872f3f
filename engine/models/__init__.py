"""Model families: what differs between MLLMs. One file per family; each exports `PLUGIN`.

The family of a checkpoint is found by the `model_type` of its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A family of checkpoints.

    `parts` maps vision, projector and language to the module-name prefixes they consist of.
    """

    version: int
    model_types: tuple[str, ...]
    auto_class: str  # name of the transformers Auto class that loads it
    parts: Mapping[str, tuple[str, ...]]
    has_vision: bool = True
