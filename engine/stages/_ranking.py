"""Ranks arms by what their adapted models answered to the same items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from engine.rendering.ranking import domain, ranking
from engine.rendering.summary import SCORES, Nodes
from engine.statistics.clustered import difference


def ranked(arms: Sequence[Mapping[str, Any]], nodes: Mapping[str, Nodes]) -> list[dict[str, Any]]:
    """Return the ranking of a summary's arms; `nodes` are the artifacts of each."""
    by_name = {arm["name"]: arm for arm in arms}

    @cache
    def items(arm: str, benchmark: str) -> dict[str, Mapping[str, Any]]:
        artifact = nodes[arm].get(f"{SCORES}{benchmark}")
        rows = artifact.rows("items") if artifact is not None else ()
        return {row["id"]: row for row in rows}

    def between(first: str, second: str) -> tuple[float, float] | None:
        found = []
        for row in domain(by_name[first]):
            left, right = items(first, row["benchmark"]), items(second, row["benchmark"])
            if not left or left.keys() != right.keys():
                return None
            found.append(
                difference(
                    [left[name]["adapted"] for name in left],
                    [right[name]["adapted"] for name in left],
                    [left[name]["cluster"] for name in left],
                )
            )
        mean = sum(gain for gain, _ in found) / len(found)
        return mean, math.hypot(*(error for _, error in found)) / len(found)

    return ranking(arms, between)
