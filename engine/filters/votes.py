"""Keep a task when enough of several judges find its two answers consistent.

Every judge is asked the question of `consistency`, with a prompt of its own. How far they agree
goes along with the task: the share of Yes, and each judge's label. A judge whose request failed
abstains, and with none left the task is dropped. (VERITAS, arXiv 2510.15317, fuses three judges.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from engine import prompts
from engine.filters import (
    Decide,
    Decision,
    Filter,
    FilterContext,
    Kept,
    Measure,
    Question,
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


def measure(params: Params, context: FilterContext) -> Measure:
    """Ask every judge: for each task a list with the log-probabilities of each, or None."""
    models = [context.open_model(juror.judge) for juror in params.judges]

    def of(records: Sequence[Record]) -> list[list[Any]]:
        columns = []
        for juror, model in zip(params.judges, models, strict=True):
            template, is_raw = context.prompts[juror.prompt], not juror.as_chat
            texts = [prompts.render(template, **texts_of(record)) for record in records]
            asked = [Question(text, is_raw=is_raw) for text in texts]
            labels = after(texts[0], LABELS, is_raw=is_raw) if texts else LABELS
            columns.append(model.score(asked, labels) if asked else [])
        return [list(row) for row in zip(*columns, strict=True)]

    return Measure(of)


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


PLUGIN = Filter(version=1, params=Params, open=open_filter, measure=measure, needs_accelerator=True)
