"""How the scores of two runs differ: adapted model against adapted model, on the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from engine.artifacts import Artifact
from engine.plan.stage import Node

_ROWS = "items"


def compared(old: Node, new: Node, before: Artifact, after: Artifact) -> dict[str, Any]:
    """Return both scores of a benchmark, and their paired difference if the items are the same."""
    first, second = _whole(before), _whole(after)
    found: dict[str, Any] = {
        "node": new.id,
        "benchmark": second["benchmark"],
        "arms": list(new.arms),
        "old": {"base": first["base"], "adapted": first["adapted"]},
        "new": {"base": second["base"], "adapted": second["adapted"]},
        "paired": None,
        "reason": None,
    }
    if before.manifest.key == after.manifest.key:
        return {**found, "reason": "the same result"}
    left = {row["id"]: row for row in before.rows(_ROWS)}
    right = {row["id"]: row for row in after.rows(_ROWS)}
    found["reason"] = _why_not(old, new, left, right)
    if found["reason"] is None:
        found["paired"] = _paired(left, right, new.seed)
    return found


def _whole(artifact: Artifact) -> Mapping[str, Any]:
    """Return the score row of the whole benchmark."""
    row: Mapping[str, Any] = next(
        row for row in artifact.json("scores.json") if row["answer_type"] is None
    )
    return row


def _why_not(old: Node, new: Node, left: Mapping[str, Any], right: Mapping[str, Any]) -> str | None:
    """Return why two results cannot be compared item by item, or None when they can."""
    for what in ("scorer", "scorer_version", "metric", "metric_by_type"):
        if old.params.get(what) != new.params.get(what):
            return f"they were scored differently ({what.replace('_', ' ')})"
    if left.keys() != right.keys():
        return f"they have other items ({len(left.keys() & right.keys())} in common)"
    return None


def _paired(left: Mapping[str, Any], right: Mapping[str, Any], seed: int) -> dict[str, Any]:
    from engine.statistics.paired import compare

    ids = sorted(left)
    found = compare(
        [left[name]["adapted"] for name in ids],
        [right[name]["adapted"] for name in ids],
        [left[name]["cluster"] for name in ids],
        seed=seed,
    )
    values = asdict(found)
    return {
        "old": values.pop("base"),
        "new": values.pop("adapted"),
        **values,
    }
