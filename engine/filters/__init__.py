"""Filters: keep a record, or say why not. One file per filter; each exports `PLUGIN`.

A filter is opened once per node and then called with batches in order, so it may remember what it
has seen (near duplicates) or hold a model (a judge). The returned list has one entry per record:
None keeps it, a short constant text drops it, and becomes its reason in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts import Artifact
from engine.images import ImageBank
from engine.plugin import ModelUse
from engine.records import Record

if TYPE_CHECKING:
    from engine.backends import Session


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a record is dropped: a short constant for counting, and what was seen."""

    reason: str
    detail: str = ""


Judge = Callable[[Sequence[Record]], Sequence[Verdict | None]]


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What a filter may touch."""

    images: ImageBank
    benchmarks: Mapping[str, Artifact]  # by name; for decontamination
    open_model: Callable[[ModelUse], Session]
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
