"""Filters: keep a record, or say why not. One file per filter; each exports `PLUGIN`.

A filter works in two halves. `measure` finds out what costs time (decoded pixels, a judge's words):
of each record by itself, so it is done in shards, by several processes, and kept. `open` returns
what decides, from a record and its measurement: it is called with the records in order, so it may
remember what it let pass, and it must be cheap, because every process decides anew.

Texts of records are data of strangers: a template that shows them to a model keeps them in their
place (filters `one_line` and `data` of `engine.prompts`), or a caption could tell a judge what to
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.artifacts import Artifact
from engine.images import ImageBank
from engine.plugin import ModelUse
from engine.records import Record


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a record is dropped: a short constant for counting, and what was seen."""

    reason: str
    detail: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)  # as `Kept`


@dataclass(frozen=True, slots=True)
class Kept:
    """A record stays, and what was found out about it goes along: JSON, put into `meta.extra`.

    It stands there under the name of the filter, and filters after this one can read it.
    """

    notes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a filter asks a model: images, named by digest, and a text after them."""

    text: str
    images: tuple[str, ...] = ()
    is_raw: bool = False  # the bare text is the prompt (a base LLM); otherwise it is a user turn


class Model(Protocol):
    """A model as filters see it. None in a list: that request failed."""

    def write(
        self,
        questions: Sequence[Question],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        draw: int = 0,
    ) -> list[str | None]:
        """Return what the model writes; above temperature 0, each `draw` is another sample."""

    def score(
        self, questions: Sequence[Question], choices: Sequence[str]
    ) -> list[tuple[float, ...] | None]:
        """Return the log-probability of each choice as the next text, in one pass (>= FLOOR)."""


FLOOR = -100.0  # a log-probability that an engine does not tell because it is too small
Decision = Verdict | Kept | None  # None: it stays, and there is nothing to say
Decide = Callable[[Record, Any], Decision]  # a record and its measurement, None without one
Keep = Callable[[str, int, Callable[[], Iterable[Any]]], list[Any]]  # as `Tools.keep`
Share = Callable[[Sequence[int]], list[int]]  # as `Tools.share`


@dataclass(frozen=True, slots=True)
class Measure:
    """Finds out one JSON value per record, which depends on that record alone."""

    of: Callable[[Sequence[Record]], Iterable[Any]]
    shared_name: str | None = None  # filters with the same name measure the same: done once


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What a filter may touch."""

    images: ImageBank
    benchmarks: Mapping[str, Artifact]  # by name; for decontamination
    open_model: Callable[[ModelUse], Model]  # loads at the first question
    prompts: Mapping[str, str]  # template text by "name@version"
    keep: Keep  # for work that `open` must do
    seed: int


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter; `prompts(params)` names the templates it needs, `models(params)` the models."""

    version: int
    params: type
    open: Callable[[Any, FilterContext], Decide]
    measure: Callable[[Any, FilterContext], Measure | None] | None = None
    prepare: Callable[[Any, FilterContext, Share], None] | None = None  # a share of `open`'s work
    remembers: bool = False  # what it decides depends on the records before
    needs_accelerator: bool = False
