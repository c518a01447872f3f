"""Filters: keep a record, or say why not. One file per filter; each exports `PLUGIN`.

A filter works in two halves. The first finds out what costs time about each record by itself, so it
is done in shards, by several processes, and kept: `measure` computes it (decoded pixels), `inquire`
asks models. `open` returns what decides, from a record and what was found out: it is called with
the records in order, so it may remember what it let pass, and it must be cheap, because every
process decides anew, some more than once.

Texts of records are data of strangers: a template that shows them to a model keeps them in their
place (filters `one_line` and `data` of `engine.prompts`), or a caption could tell a judge what to
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Score:
    """Asks how likely each choice is as the next text, all in one pass over the question.

    The reply has the natural log-probability of each (>= FLOOR); None: the request failed.
    """

    question: Question
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Asks for a text. The reply is what the model writes; None: the request failed."""

    question: Question
    max_new_tokens: int
    temperature: float = 0.0
    draw: int = 0  # above temperature 0, each is another sample


FLOOR = -100.0  # a log-probability that an engine does not tell because it is too small
Decision = Verdict | Kept | None  # None: it stays, and there is nothing to say
Decide = Callable[[Record, Any], Decision]  # a record, and what was found out about it
Asking = Generator[Score | Write, Any, Any]  # asks, reads the reply, may ask again; returns JSON
Keep = Callable[[str, int, Callable[[], Iterable[Any]]], list[Any]]  # as `Tools.keep`
Share = Callable[[Sequence[int]], list[int]]  # as `Tools.share`


@dataclass(frozen=True, slots=True)
class Measure:
    """Finds out one JSON value per record, which depends on that record alone."""

    of: Callable[[Sequence[Record]], Iterable[Any]]
    shared_name: str | None = None  # filters with the same name measure the same: done once


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Finds out one JSON value per record by asking a model, about that record alone.

    Records are asked about side by side, as many as keep the model busy.
    """

    model: ModelUse
    ask: Callable[[Record], Asking]


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What a filter may touch."""

    images: ImageBank
    benchmarks: Mapping[str, Artifact]  # by name; for decontamination
    prompts: Mapping[str, str]  # template text by "name@version"
    keep: Keep  # for work that `open` must do
    seed: int


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that measures, inquires, or neither.

    What it decides by is accordingly the measurement, the list of what each inquiry found, or None.
    """

    version: int
    params: type
    open: Callable[[Any, FilterContext], Decide]
    measure: Callable[[Any, FilterContext], Measure | None] | None = None
    inquire: Callable[[Any, FilterContext], Sequence[Inquiry]] | None = None
    prepare: Callable[[Any, FilterContext, Share], None] | None = None  # a share of `open`'s work
    remembers: bool = False  # what it decides depends on the records before
