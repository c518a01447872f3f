"""The mean of grades, and what a filter does to it, with intervals by clusters.

Tasks about one image are not independent, so images are resampled, never tasks, as in `paired.py`.
A sample drawn from strata speaks for the whole by the share of each (Cochran 1977, section 5.3);
each draw weighs its own strata again. A stratum whose grades are all equal shows no spread, and a
bootstrap would claim certainty: there the share of what was not seen is drawn from Beta(1, number
of clusters), whose bound is the rule of three (Hanley and Lippman-Hand 1983).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.statistics.paired import (
    MIN_CLUSTERS,
    NUM_DRAWS,
    cluster_sums,
    interval_of,
    resampled,
)

if TYPE_CHECKING:
    from engine.statistics.paired import Floats


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and the ends of its 95 % interval, in points (0-100)."""

    mean: float
    ci_low: float
    ci_high: float
    num_items: int
    num_clusters: int


@dataclass(frozen=True, slots=True)
class Strata:
    """Which stratum each value is of, and the share of each stratum in the whole."""

    of: Sequence[str]
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Effect:
    """The mean of one stratum minus that of the whole, in points."""

    difference: float
    ci_low: float
    ci_high: float


def mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    strata: Strata | None = None,
    *,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> Mean:
    """Return the mean of values between 0 and 1, with the interval of its clusters.

    Raises ValueError for no values, lists of different lengths, or a stratum without values. Fewer
    than `MIN_CLUSTERS` say nothing about spread: the interval is then the widest there is.
    """
    found = _drawn(values, clusters, strata or _alone(values), seed, num_draws)
    middle = float(found.means @ found.shares)
    num_clusters = len(set(clusters))
    if num_clusters < MIN_CLUSTERS:
        low, high = 0.0, 1.0
    else:
        low, high = interval_of(found.draws @ found.shares, num_clusters)
    low, high = max(min(low, middle), 0.0), min(max(high, middle), 1.0)
    return Mean(100 * middle, 100 * low, 100 * high, len(values), num_clusters)


def effect(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    strata: Strata,
    stratum: str,
    *,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> Effect:
    """Return how far the mean of one stratum is from that of the whole: what choosing it does.

    Raises ValueError as `mean` does.
    """
    import numpy as np

    found = _drawn(values, clusters, strata, seed, num_draws)
    weights = -found.shares
    weights[found.names.index(stratum)] += 1
    middle = float(found.means @ weights)
    num_clusters = len(set(clusters))
    if num_clusters < MIN_CLUSTERS:
        reach = float(np.abs(weights).sum() / 2)
        return Effect(100 * middle, -100 * reach, 100 * reach)
    low, high = interval_of(found.draws @ weights, num_clusters)
    return Effect(100 * middle, 100 * min(low, middle), 100 * max(high, middle))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The mean of each stratum, as it is and in each draw."""

    names: list[str]
    shares: Floats  # of the whole; their sum is 1
    means: Floats
    draws: Floats  # draw x stratum


def _alone(values: Sequence[float]) -> Strata:
    return Strata([""] * len(values), {"": 1.0})


def _drawn(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    strata: Strata,
    seed: int,
    num_draws: int,
) -> _Drawn:
    import numpy as np

    if not len(values) == len(clusters) == len(strata.of):
        raise ValueError("values, clusters and strata differ in length")
    names = [name for name, share in strata.shares.items() if share]
    if not values or not set(names) <= set(strata.of):
        raise ValueError("there are no grades")
    columns = [
        [float(own == name) * worth for own, worth in zip(strata.of, worths, strict=True)]
        for name in names
        for worths in (values, [1.0] * len(values))
    ]
    table = cluster_sums(columns, clusters)
    totals = table.sum(axis=0)
    rng = np.random.default_rng(seed)
    sums = resampled(table, rng, num_draws)
    # A draw that misses a stratum says nothing of the whole.
    sums = sums[(sums[:, 1::2] > 0).all(axis=1)]
    draws = sums[:, ::2] / sums[:, 1::2]
    for place, name in enumerate(names):
        seen = {value for value, own in zip(values, strata.of, strict=True) if own == name}
        num_clusters = int((table[:, 2 * place + 1] > 0).sum())
        if num_clusters < MIN_CLUSTERS:
            draws[:, place] = rng.random(len(draws))
        elif len(seen) == 1:
            (value,) = seen
            ends = (rng.random(len(draws)) < value).astype(float)  # where the unseen may be
            unseen = rng.beta(1, num_clusters, len(draws))
            draws[:, place] = value + (1 - ends - value) * unseen
    shares = np.array([strata.shares[name] for name in names], float)
    return _Drawn(names, shares / shares.sum(), totals[::2] / totals[1::2], draws)
