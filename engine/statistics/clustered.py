"""The standard error of a paired difference, by clusters, in closed form.

Source: Miller 2024, arXiv 2411.00640. Much faster than the intervals of `paired.py`, for comparing
many models with one another; with few clusters it is too small, so those say nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

from engine.statistics.paired import MIN_CLUSTERS


def difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[float, float]:
    """Return the mean of second minus first and its standard error, both in points (0-100).

    Scores (0 to 1) are per item, in the same order. The error is infinite below `MIN_CLUSTERS`.
    """
    gains = [b - a for a, b in zip(first, second, strict=True)]
    mean = sum(gains) / len(gains)
    sums: dict[Hashable, float] = defaultdict(float)
    for gain, cluster in zip(gains, clusters, strict=True):
        sums[cluster] += gain - mean
    if len(sums) < MIN_CLUSTERS:
        return 100 * mean, math.inf
    return 100 * mean, 100 * math.sqrt(sum(value**2 for value in sums.values())) / len(gains)
