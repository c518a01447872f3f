"""Tells before a run whether a checkpoint is in the layout that the recipe says it is in."""

from __future__ import annotations

from collections.abc import Iterator

from engine.diagnostics import Diagnostic
from engine.models._known import ModelFinder
from engine.recipe.model import Recipe

CODE = "wrong-layout"


def mistakes(recipe: Recipe, models: ModelFinder) -> Iterator[Diagnostic]:
    """Yield the models of another layout, and those that cannot be converted."""
    for section, spec in (("generator", recipe.generator), ("base", recipe.base)):
        known = models.find(spec.model, spec.revision) if spec is not None else None
        if spec is None or known is None:
            continue
        place = recipe.span(section, "model")
        if known.layout != spec.layout:
            is_original = known.layout == "llava"
            kind = "an original LLaVA" if is_original else f"of the type `{known.kind}`"
            hint = "add `layout: llava` and `vision_tower`: it is converted once"
            yield Diagnostic(
                CODE,
                f"`{spec.model}` is {kind} ({known.basis}), but `{section}.layout` is "
                f"{spec.layout}",
                place,
                hint if is_original else "remove `layout` and `vision_tower`",
            )
        elif known.flaw is not None:
            message = f"`{spec.model}` cannot be converted: {known.flaw}"
            yield Diagnostic(CODE, message, place, "choose a LLaVA-NeXT, or one converted before")
