"""How far two graders agree beyond chance: Cohen's kappa (1960), weighted for scales (1968).

Counting and plain arithmetic; no numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence


def kappa(first: Sequence[int], second: Sequence[int], *, num_levels: int = 0) -> float | None:
    """Return Cohen's kappa of two graders' levels of the same rows; None where it has no value.

    With `num_levels` the levels have an order, and a disagreement counts by the square of its
    distance. Kappa has no value when chance alone would agree always: both used one level.
    """
    if len(first) != len(second):
        raise ValueError("the graders graded different rows")
    if not first:
        return None
    apart = _distance(num_levels)
    pairs = list(zip(first, second, strict=True))
    seen = sum(apart(a, b) for a, b in pairs) / len(pairs)
    left, right = Counter(first), Counter(second)
    expected = (
        sum(apart(a, b) * num_a * num_b for a, num_a in left.items() for b, num_b in right.items())
        / len(pairs) ** 2
    )
    return 1 - seen / expected if expected else None


def _distance(num_levels: int) -> Callable[[int, int], float]:
    if num_levels < 2:
        return lambda a, b: float(a != b)
    return lambda a, b: ((a - b) / (num_levels - 1)) ** 2


def rarefied(counts: Sequence[int], num_rows: int, num_all: int | None = None) -> float:
    """Return how many kinds are expected among `num_rows` rows drawn from `num_all` rows.

    `counts` says how many rows each kind has; other rows are of no kind [none]. So samples of
    different sizes can be compared (Hurlbert 1971).
    """
    total = sum(counts) if num_all is None else num_all
    if num_rows > total:
        raise ValueError(f"{num_rows} rows cannot be drawn from {total}")
    return sum(1 - _missed(total, count, num_rows) for count in counts)


def _missed(total: int, count: int, num_rows: int) -> float:
    """Return the chance that none of `num_rows` rows is one of `count`."""
    chance = 1.0
    for drawn in range(num_rows):
        chance *= max(total - count - drawn, 0) / (total - drawn)
    return chance
