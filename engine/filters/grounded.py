"""Keep a task when its answer is borne out by the caption, or by the image itself.

The consistency judge of the paper compares two answers and never sees what they are about: an
invention that is repeated passes (its tasks are 75-84 % accurate where rules reach 99 %, tables 7
and 8). A text judge that reads the caption finds what contradicts it; an MLLM judge looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from engine import prompts
from engine.filters import (
    Asking,
    Decide,
    Decision,
    Filter,
    FilterContext,
    Inquiry,
    Kept,
    Question,
    Score,
    Verdict,
)
from engine.filters._labels import after, said, texts_of
from engine.plugin import AtLeast, Between, ModelUse, PromptWith
from engine.records import Record

LABELS = ("Yes", "No", "Unsure")
GIVEN = ("caption", "instruction", "informative", "precise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The judge, what it sees, and how sure it must be."""

    judge: Annotated[ModelUse, "The model that judges; an MLLM where it is to see the image."]
    sees: Annotated[
        Literal["caption", "image", "both"], "What the judge believes: the caption, its eyes, both."
    ] = "caption"
    prompt: Annotated[
        str, PromptWith(GIVEN), "Template `name@version`; for an image `grounded_image@1`."
    ] = "grounded@1"
    as_chat: Annotated[
        bool, "Ask in a chat turn; a base LLM reads the bare text. An image needs a chat turn."
    ] = False
    unsure: Annotated[
        Literal["keep", "drop"], "What to do where the caption or image says nothing about it."
    ] = "keep"
    threshold: Annotated[
        float, Between(0, 1), "Smallest probability of Yes among the labels; 0: the label decides."
    ] = 0.0
    margin: Annotated[
        float, AtLeast(0), "Smallest lead of Yes over the next label, in log-probability."
    ] = 0.0
    min_mass: Annotated[
        float, Between(0, 1), "Smallest probability of all labels; below it there is no label."
    ] = 0.1


def inquire(params: Params, context: FilterContext) -> list[Inquiry]:
    """Ask the judge about each task: the log-probabilities of the labels, or None."""
    template = context.prompts[params.prompt]
    is_raw = params.sees == "caption" and not params.as_chat

    def ask(record: Record) -> Asking:
        caption = "" if params.sees == "image" else str(record.meta.extra.get("caption", ""))
        text = prompts.render(template, caption=caption, **texts_of(record))
        images = () if params.sees == "caption" else record.images
        asked = Question(text, images, is_raw=is_raw)
        return (yield Score(asked, after(text, LABELS, is_raw=is_raw)))

    return [Inquiry(params.judge, ask)]


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, found: decision(found[0], params)


def decision(log_probs: Sequence[float] | None, params: Params) -> Decision:
    """Return whether a task stays, from the log-probabilities of LABELS."""
    if log_probs is None:
        return Verdict("judge gave no label", "the request failed")
    found = said(log_probs, LABELS)
    if found.mass < params.min_mass:
        return Verdict("judge gave no label", f"all labels together {found.mass:.4f}")
    notes = found.notes(log_probs)
    detail = f"yes {found.yes:.4f}"
    if found.label == "no" or (found.label == "unsure" and params.unsure == "drop"):
        return Verdict(f"judge says {found.label}", detail, notes)
    if found.yes < params.threshold or (params.margin and found.lead < params.margin):
        return Verdict("judge is unsure", detail, notes)
    return Kept(notes)


PLUGIN = Filter(version=1, params=Params, open=open_filter, inquire=inquire)
