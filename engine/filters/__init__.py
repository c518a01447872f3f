"""Filters: keep a record, or say why not. One file per filter; each exports `PLUGIN`.

A filter works in two halves. `measure` finds out what costs time (decoded pixels, a judge's words):
of each record by itself, so it is done in shards, by several processes, and kept. `open` returns
what decides, from a record and its measurement: it is called with the records in order, so it may
remember what it let pass, and it must be cheap, because every process decides anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """How a filter puts texts to a model."""

    max_new_tokens: int
    is_raw: bool  # the bare text is the prompt (a base LLM); otherwise it is a user turn


TextModel = Callable[[Sequence[str], Ask], Sequence[str | None]]  # None: that request failed
Decide = Callable[[Record, Any], Verdict | None]  # a record and its measurement, None without one
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
    open_model: Callable[[ModelUse], TextModel]  # loads at the first question
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
