"""Filters: keep a record, or say why not. One file per filter; each exports `PLUGIN`.

A filter is opened once per node and then called with batches in order, so it may remember what it
has seen (near duplicates) or hold a model (a judge). The returned list has one entry per record:
None keeps it, a short constant text drops it, and becomes its reason in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
Judge = Callable[[Sequence[Record]], Sequence[Verdict | None]]


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What a filter may touch."""

    images: ImageBank
    benchmarks: Mapping[str, Artifact]  # by name; for decontamination
    open_model: Callable[[ModelUse], TextModel]  # loads at the first question
    prompts: Mapping[str, str]  # template text by "name@version"
    scratch: Path
    seed: int


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter; `prompts(params)` names the templates it needs, `models(params)` the models."""

    version: int
    params: type
    open: Callable[[Any, FilterContext], Judge]
    needs_accelerator: bool = False
