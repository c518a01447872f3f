"""The interval of one model's accuracy (Wilson 1927), which stays honest near 0 and 100."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers, in points (0-100)."""

    accuracy: float
    ci_low: float
    ci_high: float
    num_items: int


def wilson(num_right: float, num_items: int, *, level: float = 0.95) -> Accuracy:
    """Return an accuracy with its interval; for independent items, so one per cluster.

    Raises ValueError unless 0 <= num_right <= num_items and there is an item.
    """
    if not 0 <= num_right <= num_items or num_items == 0:
        raise ValueError(f"{num_right} right of {num_items} items")
    z = NormalDist().inv_cdf(1 - (1 - level) / 2)
    share = num_right / num_items
    centre = share + z**2 / (2 * num_items)
    reach = z * math.sqrt(share * (1 - share) / num_items + z**2 / (4 * num_items**2))
    scale = 100 / (1 + z**2 / num_items)
    low, high = max(0.0, (centre - reach) * scale), min(100.0, (centre + reach) * scale)
    return Accuracy(100 * share, low, high, num_items)
