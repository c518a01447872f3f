"""Scorers: how an answer becomes a number. One file per rule book; each exports `PLUGIN`.

`strict` is ours, `paper` repeats the published evaluators bit for bit; the two are never mixed in a
table. A scorer offers metrics by name; the benchmark file chooses the metric of a question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.records import Record


@dataclass(frozen=True, slots=True)
class Score:
    """One item's score."""

    value: float  # 0 to 1
    parsed: str | None  # the answer as understood; None: unparsed, which scores 0
    extra: Mapping[str, float] = field(default_factory=dict)  # companions, 0 to 1 (recall, exact)


Metric = Callable[[Record, str], Score]  # question, raw answer -> score


@dataclass(frozen=True, slots=True)
class Scorer:
    """A rule book: metric name -> rule."""

    version: int
    metrics: Mapping[str, Metric]
