"""The arms of a matrix, or of several runs, in one order: the best mean gain on the domain first.

Arms that cannot be told apart from the first of their place share the place. Only arms that were
asked the same are ranked: the mean of other benchmarks is another number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

Arm = Mapping[str, Any]  # as in schemas/summary.schema.json
# Names of two arms -> difference of their adapted models in points, and its standard error.
Between = Callable[[str, str], tuple[float, float] | None]
QUANTILE = 1.96  # 95 %, two-sided


def ranking(arms: Sequence[Arm], between: Between) -> list[dict[str, Any]]:
    """Return a row per arm, best first; those that cannot be ranked at the end, with a reason."""
    rows = [_row(arm) for arm in arms]
    asked = Counter(row.pop("asked") for row in rows if row["num_benchmarks"])
    usual = asked.most_common(1)[0][0] if asked else ()
    for row, arm in zip(rows, arms, strict=True):
        row.pop("asked", None)
        if not row["num_benchmarks"]:
            row["reason"] = "no score on a domain benchmark"
        elif _asked(arm) != usual:
            row["reason"] = "asked other benchmarks or scored otherwise"
    ranked = [row for row in rows if row["reason"] is None]
    ranked.sort(key=lambda row: -row["difference"])
    _place(ranked, between)
    return [*ranked, *(row for row in rows if row["reason"] is not None)]


def domain(arm: Arm) -> list[Mapping[str, Any]]:
    """Return the whole-benchmark rows of an arm's domain benchmarks."""
    rows = [row for row in arm["scores"] if row.get("answer_type") is None]
    return [row for row in rows if row.get("panel", "domain") == "domain"]


def _row(arm: Arm) -> dict[str, Any]:
    rows = domain(arm)
    general = [
        row["difference"]
        for row in arm["scores"]
        if row.get("answer_type") is None and row.get("panel") == "general"
    ]
    return {
        "place": None,
        "is_shared": False,
        "arm": arm["name"],
        **(_means(rows) if rows else dict.fromkeys(("adapted", "difference", "ci_low", "ci_high"))),
        "general": fmean(general) if general else None,
        "num_benchmarks": len(rows),
        "max_items": arm.get("max_items"),
        "reason": None,
        "asked": _asked(arm),
    }


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return mean scores; the interval takes benchmarks as independent of one another."""
    mean = fmean(row["difference"] for row in rows)
    low = math.hypot(*(row["difference"] - row["ci_low"] for row in rows)) / len(rows)
    high = math.hypot(*(row["ci_high"] - row["difference"] for row in rows)) / len(rows)
    return {
        "adapted": fmean(row["adapted"] for row in rows),
        "difference": mean,
        "ci_low": mean - low,
        "ci_high": mean + high,
    }


def _asked(arm: Arm) -> tuple[tuple[Any, ...], ...]:
    names = ("benchmark", "metric", "scorer", "num_items")
    return tuple(sorted(tuple(row[name] for name in names) for row in domain(arm)))


def _place(ranked: Sequence[dict[str, Any]], between: Between) -> None:
    """Give places; an arm shares that of the first one it cannot be told apart from."""
    first: dict[str, Any] | None = None
    for place, row in enumerate(ranked, 1):
        if first is not None and not _is_apart(first, row, between):
            row["place"] = first["place"]
            row["is_shared"] = first["is_shared"] = True
        else:
            row["place"], first = place, row


def _is_apart(first: Mapping[str, Any], row: Mapping[str, Any], between: Between) -> bool:
    found = between(first["arm"], row["arm"])
    if found is None:
        return False
    difference, error = found
    return abs(difference) > QUANTILE * error
