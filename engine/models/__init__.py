"""Model families: what differs between MLLMs. One file per family; each exports `PLUGIN`.

The family of a checkpoint is found by the `model_type` of its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine import plugin
from engine.diagnostics import StageError


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams:
    """A family has no settings: a checkpoint says everything itself."""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A family of checkpoints.

    `parts` maps vision, projector and language to the module-name prefixes they consist of; a
    parameter belongs to the part with the longest prefix that fits, and to language without one.
    """

    version: int
    model_types: tuple[str, ...]
    auto_class: str  # name of the transformers Auto class that loads it
    parts: Mapping[str, tuple[str, ...]]
    has_vision: bool = True
    # How tensors of single images are joined into those of a batch: along axis 0 (all images of
    # the batch in a row) or 1 (rows of the batch first); None: only the processor knows.
    image_axis: int | None = 0
    marks_image_tokens: str = ""  # the tensor in which the forward pass wants them marked by 1
    # The tensor in which it wants marked by 1 what is no prompt: the tokens of a prompt attend to
    # each other in both directions, so that no beginning of it can be read by itself.
    marks_answer: str = ""
    has_own_token: bool = False  # images are other tokens than the marker that templates write
    chat_template: str = ""  # of checkpoints that come without one
    added_by_processor: str = ""  # after the images of a text; the template writes it itself
    image_options: Mapping[str, Any] = field(default_factory=dict)  # that the processor adds
    # Where released checkpoints, which are all that vLLM reads, use other names than transformers'
    # modules have: module prefix -> stored prefix. Empty: as transformers saves them.
    stored_prefixes: Mapping[str, str] = field(default_factory=dict)
    not_in_vllm: str = ""  # why vLLM's answers are not the model's own; empty: they are
    params: type = field(default=NoParams)

    def stored_name(self, parameter_name: str) -> str:
        """Return the name under which a parameter is stored."""
        for prefix, stored in self.stored_prefixes.items():
            if parameter_name.startswith(prefix):
                return stored + parameter_name.removeprefix(prefix)
        return parameter_name

    def part_of(self, parameter_name: str) -> str:
        """Return the part that a parameter or module belongs to, by its full name."""
        fits = [
            (len(prefix), part)
            for part, prefixes in self.parts.items()
            for prefix in prefixes
            if f"{parameter_name}.".startswith(f"{prefix}.")
        ]
        return max(fits)[1] if fits else "language"


def family_of(model_type: str, model: str = "") -> ModelFamily:
    """Return the family of a checkpoint. Raise StageError, naming those we know, if none fits."""
    families: list[ModelFamily] = [plugin.load("models", name) for name in plugin.names("models")]
    for family in families:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(kind for family in families for kind in family.model_types))
    which = f"the type of `{model}`: `{model_type}`" if model else f"models of type `{model_type}`"
    raise StageError(
        f"no model family knows {which}",
        hint=f"known types: {known}; a family is one file in engine/models",
        code="unknown-model-family",
        about=("model", model) if model else (),
    )
