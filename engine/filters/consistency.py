"""Keep a task when its precise answer follows from its informative one (Cheng et al. 2024, 3.1.2).

The judge reads the instruction and both answers, never the image or the caption, and writes Yes, No
or Open (an open-ended question has no single right answer). Only Yes is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from engine import prompts
from engine.filters import Ask, Decide, Filter, FilterContext, Measure, Verdict
from engine.plugin import AtLeast, ModelUse, PromptWith
from engine.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The judge and how it is asked."""

    judge: Annotated[ModelUse, "The model that judges."]
    prompt: Annotated[
        str,
        PromptWith(("instruction", "informative", "precise")),
        "Template `name@version` of the question to the judge.",
    ] = "consistency@1"
    max_new_tokens: Annotated[int, AtLeast(1), "Tokens the judge may write."] = 4
    as_chat: Annotated[bool, "Ask in a chat turn; a base LLM reads the bare text instead."] = False


def measure(params: Params, context: FilterContext) -> Measure:
    """Ask the judge about each task."""
    model = context.open_model(params.judge)
    template = context.prompts[params.prompt]
    ask = Ask(max_new_tokens=params.max_new_tokens, is_raw=not params.as_chat)
    return Measure(lambda records: model([_question(record, template) for record in records], ask))


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, written: reason_to_drop(written)


def reason_to_drop(written: str | None) -> Verdict | None:
    """Return why a task is dropped, from the first word that the judge wrote."""
    words = (written or "").split()
    label = words[0].strip(".,:;!*").lower() if words else ""
    if label == "yes":
        return None
    if label in ("no", "open"):
        return Verdict(f"judge says {label}")
    return Verdict("judge gave no label", "the request failed" if written is None else written)


def _question(record: Record, template: str) -> str:
    return prompts.render(
        template,
        instruction=record.instruction,
        informative=record.answer("informative"),
        precise=record.answer("precise"),
    )


PLUGIN = Filter(version=1, params=Params, open=open_filter, measure=measure, needs_accelerator=True)
