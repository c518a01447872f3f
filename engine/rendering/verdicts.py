"""What a score row says, in one sentence that claims no more than its interval does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SMOKE = "Smoke run, not a result: each benchmark was cut to its first {max_items:,} items."


def kind(row: Mapping[str, Any]) -> str:
    """Return `gain`, `loss`, or `open` when the interval includes zero."""
    if row["ci_low"] > 0:
        return "gain"
    return "loss" if row["ci_high"] < 0 else "open"


def title(row: Mapping[str, Any]) -> str:
    """Return the benchmark's name, and that it is a general one: there, a loss is forgetting."""
    return f"{row['benchmark']}{' (general)' if row.get('panel') == 'general' else ''}"


def sentence(row: Mapping[str, Any]) -> str:
    """Return the verdict on a score row."""
    words = {
        "gain": f"a gain of {row['difference']:.1f} points",
        "loss": f"a loss of {-row['difference']:.1f} points",
        "open": "no difference at all" if _is_equal(row) else "no gain shown",
    }[kind(row)]
    return f"{words}, from {row['base']:.1f} to {row['adapted']:.1f}"


def evidence(row: Mapping[str, Any]) -> str:
    """Return what the verdict rests on."""
    interval = f"95 % interval of the difference {interval_text(row)}"
    if kind(row) == "open" and not _is_equal(row):
        interval += ", which includes zero"
    size = f"{counted(row['num_items'], 'item')} on {counted(row['num_clusters'], 'image')}"
    told = [interval, size, unparsed(row)]
    return "; ".join(part for part in told if part) + "."


def interval_text(row: Mapping[str, Any]) -> str:
    """Return the two ends of the interval."""
    return f"{row['ci_low']:+.1f} to {row['ci_high']:+.1f}"


def unparsed(row: Mapping[str, Any]) -> str:
    """Return how many answers could not be read; empty when all could."""
    base, adapted = row["unparsed_base"], row["unparsed_adapted"]
    if not base and not adapted:
        return ""
    return f"answers that could not be parsed, counted as wrong: base {base:,}, adapted {adapted:,}"


def counted(number: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def smoke(max_items: int | None) -> str:
    """Return the warning of an arm whose benchmarks were cut; empty for a whole one."""
    return "" if max_items is None else SMOKE.format(max_items=max_items)


def _is_equal(row: Mapping[str, Any]) -> bool:
    return bool(row["ci_low"] == row["ci_high"] == row["difference"] == 0)
