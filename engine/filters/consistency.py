"""Keep a task when its precise answer follows from its informative one (Cheng et al. 2024, 3.1.2).

The judge reads the instruction and both answers, never the image or the caption, and says Yes, No
or Open (an open-ended question has no single right answer). Only Yes is kept. Nothing is written:
one pass over the prompt tells how likely each label is, so the answer comes with its certainty, and
a stricter `threshold` needs no new question to the judge.
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
    Score,
    Verdict,
    Write,
)
from engine.filters._labels import after, said, texts_of
from engine.plugin import AtLeast, Between, ModelUse, PromptWith
from engine.records import Record

LABELS = ("Yes", "No", "Open")
REMARK_TOKENS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The judge, how it is asked, and how sure it must be."""

    judge: Annotated[ModelUse, "The model that judges."]
    prompt: Annotated[
        str,
        PromptWith(("instruction", "informative", "precise")),
        "Template `name@version` of the question to the judge.",
    ] = "consistency@2"
    as_chat: Annotated[bool, "Ask in a chat turn; a base LLM reads the bare text instead."] = False
    threshold: Annotated[
        float, Between(0, 1), "Smallest probability of Yes among the labels; 0: the likeliest wins."
    ] = 0.0
    margin: Annotated[
        float, AtLeast(0), "Smallest lead of Yes over the next label, in natural log-probability."
    ] = 0.0
    min_mass: Annotated[
        float,
        Between(0, 1),
        "Smallest probability of all labels together; below it the judge gave no label.",
    ] = 0.1
    remark: Annotated[
        str | None,
        PromptWith(("instruction", "informative", "precise")),
        "Template of a second question about a task that is turned down: what is wrong? The answer "
        "goes along, for `generator.repair_prompt`; for example `remark@1`. Null: not asked.",
    ] = None


def inquire(params: Params, context: FilterContext) -> list[Inquiry]:
    """Ask the judge about each task: [log-probabilities of the labels or None, remark or None]."""
    template = context.prompts[params.prompt]
    remark = None if params.remark is None else context.prompts[params.remark]
    is_raw = not params.as_chat

    def question(record: Record, template: str) -> Question:
        return Question(prompts.render(template, **texts_of(record)), is_raw=is_raw)

    def ask(record: Record) -> Asking:
        asked = question(record, template)
        log_probs = yield Score(asked, after(asked.text, LABELS, is_raw=is_raw))
        if remark is None or not isinstance(decision(log_probs, params), Verdict):
            return [log_probs, None]
        written = yield Write(question(record, remark), REMARK_TOKENS)
        lines = (written or "").strip().splitlines()
        return [log_probs, lines[0] if lines else None]

    return [Inquiry(params.judge, ask)]


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, found: decision(found[0][0], params, found[0][1])


def decision(
    log_probs: Sequence[float] | None, params: Params, remark: str | None = None
) -> Decision:
    """Return whether a task stays, with what the judge said, from log-probabilities of LABELS."""
    if log_probs is None:
        return Verdict("judge gave no label", "the request failed")
    found = said(log_probs, LABELS)
    if found.mass < params.min_mass:
        return Verdict("judge gave no label", f"all labels together {found.mass:.4f}")
    notes = found.notes(log_probs)
    if remark is not None:
        notes["remark"] = remark
    if found.label != "yes":
        return Verdict(f"judge says {found.label}", f"yes {found.yes:.4f}", notes)
    if found.yes < params.threshold or found.lead < params.margin:
        return Verdict("judge is unsure", f"yes {found.yes:.4f}", notes)
    return Kept(notes)


PLUGIN = Filter(version=2, params=Params, open=open_filter, inquire=inquire)
