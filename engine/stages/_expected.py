"""How many items a benchmark was published with: another number is another benchmark.

A dropped batch, an unreadable picture or the wrong split changes a score in silence (BENCHMARKS
1.6: a missing item fails the run). So `collect` refuses it before anything is computed, and
`evaluate.scores` once more, for a benchmark may have been collected before its file said a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.diagnostics import StageError

TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The numbers that a benchmark file states."""

    benchmark: str
    items: Mapping[str, int]  # `total`, or an answer type -> number


def expected_of(benchmark: str, items: Mapping[str, int] | None) -> Expected | None:
    """Return what is expected of a benchmark; None where nothing is."""
    return Expected(benchmark=benchmark, items=items) if items else None


def refuse_other_numbers(
    expected: Expected | None, answer_types: Iterable[str], num_quarantined: int = 0
) -> None:
    """Raise StageError unless the items, given by their answer types, are as many as stated."""
    if expected is None:
        return
    found = Counter(answer_types)
    found[TOTAL] = found.total()
    wrong = [
        f"{found[kind]:,} items{_of(kind)}, not {number:,}"
        for kind, number in expected.items.items()
        if found[kind] != number
    ]
    if not wrong:
        return
    lost = f"; {num_quarantined:,} rows are in its quarantine" if num_quarantined else ""
    raise StageError(
        f"benchmark `{expected.benchmark}` has {' and '.join(wrong)}{lost}",
        hint="a score on other items compares with nothing: look at its split, revision and "
        "quarantine, or state what is right in `expected_items` of "
        f"benchmarks/{expected.benchmark}.yaml; `benchmarks.max_items` makes it a smoke run",
    )


def _of(kind: str) -> str:
    return "" if kind == TOTAL else f" of type `{kind}`"
