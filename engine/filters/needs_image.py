"""Drop, or weigh less, tasks that a model answers without seeing the image.

What can be told from the words alone ("Is an X-ray made with radiation?") teaches a model to guess
instead of to look; benchmarks in which that works have been shown to rise while the use of the
image falls (arXiv 2603.03437). The model may be text-only, or the MLLM itself with its eyes shut.
"""

from __future__ import annotations

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
    Verdict,
    Write,
)
from engine.plugin import AtLeast, Between, ModelUse, PromptWith
from engine.records import Record
from engine.wording import agrees


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The model that guesses, and what becomes of a task that it guesses right."""

    model: Annotated[ModelUse, "The model that answers without the image."]
    prompt: Annotated[
        str, PromptWith(("question", "options")), "Template `name@version` of the question."
    ] = "brief@1"
    as_chat: Annotated[bool, "Ask in a chat turn; a base LLM reads the bare text instead."] = True
    max_new_tokens: Annotated[int, AtLeast(1), "Tokens the model may write."] = 32
    action: Annotated[
        Literal["drop", "weigh"], "Drop such tasks, or let them enter the mix more seldom."
    ] = "drop"
    weight: Annotated[
        float, Between(0, 1), "With `weigh`: the share of such tasks that enters the mix."
    ] = 0.25


def inquire(params: Params, context: FilterContext) -> list[Inquiry]:
    """Let the model guess: its answer to each task, or None."""
    template = context.prompts[params.prompt]

    def ask(record: Record) -> Asking:
        text = prompts.render(template, question=record.instruction, options=())
        return (yield Write(Question(text, is_raw=not params.as_chat), params.max_new_tokens))

    return [Inquiry(params.model, ask)]


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, found: decision(record, found[0], params)


def decision(record: Record, guess: str | None, params: Params) -> Decision:
    """Return what becomes of a task; a model that did not answer has not guessed it."""
    if guess is None or not agrees(guess, record.answer("precise")):
        return None
    if params.action == "drop":
        return Verdict("answered without the image", guess)
    return Kept({"guess": guess, "weight": params.weight})


PLUGIN = Filter(version=1, params=Params, open=open_filter, inquire=inquire)
