"""Keep tasks of a difficulty worth training on, told by the base model's own answers.

The base answers every task several times, with the image. Tasks that it always answers right teach
it nothing; those that it never does are often wrong themselves (MedVLThinker, arXiv 2508.02669,
filters by the pass rate of the base).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

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
    """The model that tries, how often, and what share of its answers may be right."""

    model: Annotated[ModelUse, "The model that answers; usually the recipe's base."]
    prompt: Annotated[
        str, PromptWith(("question", "options")), "Template `name@version` of the question."
    ] = "brief@1"
    num_answers: Annotated[int, AtLeast(1), "Answers that are drawn of each task."] = 4
    temperature: Annotated[float, Between(0, 2), "Sampling temperature of the answers."] = 0.7
    max_new_tokens: Annotated[int, AtLeast(1), "Tokens of an answer."] = 32
    min_right: Annotated[float, Between(0, 1), "Smallest share of right answers."] = 0.0
    max_right: Annotated[float, Between(0, 1), "Largest share of right answers."] = 0.99


def inquire(params: Params, context: FilterContext) -> list[Inquiry]:
    """Let the model try: the share of right answers to each task, None where all tries failed."""
    template = context.prompts[params.prompt]

    def ask(record: Record) -> Asking:
        text = prompts.render(template, question=record.instruction, options=())
        asked, answers = Question(text, record.images), []
        for draw in range(params.num_answers):
            answers.append((yield Write(asked, params.max_new_tokens, params.temperature, draw)))
        return _share(record, answers)

    return [Inquiry(params.model, ask)]


def _share(record: Record, answers: Sequence[str | None]) -> float | None:
    given = [answer for answer in answers if answer is not None]
    if not given:
        return None
    return sum(agrees(answer, record.answer("precise")) for answer in given) / len(given)


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, found: decision(found[0], params)


def decision(share: float | None, params: Params) -> Decision:
    """Return whether a task is neither too easy nor too hard."""
    if share is None:
        return Verdict("the model gave no answer")
    if share > params.max_right:
        return Verdict("too easy", f"{share:.2f} of the answers are right")
    if share < params.min_right:
        return Verdict("too hard", f"{share:.2f} of the answers are right")
    return Kept({"right": round(share, 4)})


PLUGIN = Filter(version=1, params=Params, open=open_filter, inquire=inquire)
