"""Keep a task when enough of several judges find its two answers consistent.

Every judge is asked the question of `consistency`, with a prompt of its own. How far they agree
goes along with the task: the share of Yes, and each judge's label. A judge whose request failed
abstains, and with none left the task is dropped. (VERITAS, arXiv 2510.15317, fuses three judges.)
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
)
from engine.filters._labels import DIGITS, after, said, texts_of
from engine.plugin import AtLeast, Between, ModelUse, PromptWith
from engine.records import Record

LABELS = ("Yes", "No", "Open")
GIVEN = ("instruction", "informative", "precise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Juror:
    """One of the judges."""

    judge: Annotated[ModelUse, "The model that judges."]
    prompt: Annotated[str, PromptWith(GIVEN), "Template `name@version` of its question."] = (
        "consistency@2"
    )
    as_chat: Annotated[bool, "Ask in a chat turn; a base LLM reads the bare text instead."] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The judges, and how many of them must agree."""

    judges: Annotated[tuple[Juror, ...], AtLeast(2), "The judges; each is asked about every task."]
    min_agreement: Annotated[
        float, Between(0, 1), "Smallest share of Yes among the judges that gave a label."
    ] = 0.5
    min_mass: Annotated[
        float, Between(0, 1), "Smallest probability of all labels; below it a judge abstains."
    ] = 0.1


def inquire(params: Params, context: FilterContext) -> list[Inquiry]:
    """Ask every judge about each task: the log-probabilities of the labels, or None."""
    return [_inquiry(juror, context.prompts[juror.prompt]) for juror in params.judges]


def _inquiry(juror: Juror, template: str) -> Inquiry:
    is_raw = not juror.as_chat

    def ask(record: Record) -> Asking:
        text = prompts.render(template, **texts_of(record))
        asked = Question(text, is_raw=is_raw)
        return (yield Score(asked, after(text, LABELS, is_raw=is_raw)))

    return Inquiry(juror.judge, ask)


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, votes: decision(votes, params)


def decision(votes: Sequence[Sequence[float] | None], params: Params) -> Decision:
    """Return whether enough judges say Yes."""
    read = [None if vote is None else said(vote, LABELS) for vote in votes]
    labels = [one.label if one and one.mass >= params.min_mass else None for one in read]
    given = [label for label in labels if label is not None]
    if not given:
        return Verdict("no judge gave a label", f"{len(votes)} judges")
    agreement = given.count("yes") / len(given)
    most = max(sorted(set(given)), key=given.count)
    notes = {"label": most, "score": round(agreement, DIGITS), "labels": labels}
    if agreement < params.min_agreement:
        return Verdict("too few judges say yes", f"{given.count('yes')} of {len(given)}", notes)
    return Kept(notes)


PLUGIN = Filter(version=1, params=Params, open=open_filter, inquire=inquire)
