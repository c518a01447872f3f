"""Two models on the same items: the difference, its interval and its p-value, by clusters.

Questions about one image are not independent, so images are resampled and flipped, never items
(Miller 2024, arXiv 2411.00640). Each bootstrap draw picks clusters once and uses them for both
models. The interval is the percentile interval, widened for few clusters as in Hesterberg 2015
(arXiv 1411.5279, section 5.3). The test flips the sign of whole clusters; with few of them it looks
at every flip and is exact.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NUM_DRAWS = 10_000
MAX_CHUNK_CELLS = 4_000_000  # draws x clusters in memory at once
LEVEL = 0.95
MIN_CLUSTERS = 6  # the fewest with which a sign-flip test can get below 5 %: 2 / 2**6


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Adapted minus base, in points (0-100)."""

    base: float
    adapted: float
    difference: float
    ci_low: float
    ci_high: float
    p: float  # two-sided; 1 when no cluster differs
    num_items: int
    num_clusters: int


def compare(
    base: Sequence[float],
    adapted: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> PairedDifference:
    """Compare two models from per-item scores (0 to 1) in the same order.

    Raises ValueError for no items or lists of different lengths. Fewer than `MIN_CLUSTERS` say
    nothing about spread: the interval of a difference is then the widest there is.
    """
    import numpy as np

    if not len(base) == len(adapted) == len(clusters):
        raise ValueError("base, adapted and clusters differ in length")
    if not base:
        raise ValueError("there are no items to compare")
    totals = cluster_sums((base, adapted, [1.0] * len(base)), clusters)
    num_clusters = len(totals)
    rng = np.random.default_rng(seed)
    gain = totals[:, 1] - totals[:, 0]
    low, high = _interval(gain, totals[:, 2], rng, num_draws)
    num_items = len(base)
    means = totals.sum(axis=0) / num_items * 100
    return PairedDifference(
        base=float(means[0]),
        adapted=float(means[1]),
        difference=float(gain.sum() / num_items * 100),
        ci_low=low * 100,
        ci_high=high * 100,
        p=_sign_flip_p(gain, rng, num_draws),
        num_items=num_items,
        num_clusters=num_clusters,
    )


def cluster_sums(columns: Sequence[Sequence[float]], clusters: Sequence[Hashable]) -> Floats:
    """Return one row per cluster: the sum of each column over the items of the cluster."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    places = np.array([numbers.setdefault(name, len(numbers)) for name in clusters])
    given = (np.asarray(column, float) for column in columns)
    return np.stack([np.bincount(places, weights=column) for column in given], axis=1)


def _interval(gain: Floats, sizes: Floats, rng: Any, num_draws: int) -> tuple[float, float]:
    import numpy as np

    if not gain.any():
        return 0.0, 0.0
    if len(gain) < MIN_CLUSTERS:
        return -1.0, 1.0
    sums = resampled(np.stack([gain, sizes], axis=1), rng, num_draws)
    return interval_of(sums[:, 0] / sums[:, 1], len(gain))


def resampled(table: Floats, rng: Any, num_draws: int) -> Floats:
    """Return the sums of a table's columns over its rows drawn anew, a row per draw.

    A row of the table is a cluster.
    """
    import numpy as np

    num_clusters = len(table)
    sums = []
    for size in _chunks(num_draws, num_clusters):
        picks = rng.integers(0, num_clusters, size=(size, num_clusters))
        picks += np.arange(size)[:, None] * num_clusters
        counts = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)
        sums.append(counts @ table)
    return np.concatenate(sums)


def interval_of(draws: Floats, num_clusters: int) -> tuple[float, float]:
    """Return the 95 % interval of draws, as wide as so few clusters ask for."""
    import numpy as np

    tail = _widened_tail(num_clusters)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _sign_flip_p(gain: Floats, rng: Any, num_draws: int) -> float:
    """Return the share of sign flips whose sum is as far from zero as the one seen."""
    import numpy as np

    moved = gain[np.abs(gain) > 1e-12]
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) - 1e-9
    if 2 ** len(moved) <= num_draws:
        flips = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        return float((np.abs((2 * flips - 1) @ moved) >= seen).mean())
    num_as_far = 0
    for size in _chunks(num_draws, len(moved)):
        signs = 2.0 * rng.integers(0, 2, size=(size, len(moved)), dtype=np.int8) - 1.0
        num_as_far += int((np.abs(signs @ moved) >= seen).sum())
    return (num_as_far + 1) / (num_draws + 1)


def _chunks(num_draws: int, num_clusters: int) -> Iterator[int]:
    """Cut draws so that one matrix of draws x clusters stays small."""
    size = max(1, MAX_CHUNK_CELLS // num_clusters)
    for start in range(0, num_draws, size):
        yield min(size, num_draws - start)


def _widened_tail(num_clusters: int) -> float:
    """Return the tail to cut so that a percentile interval is as wide as a t interval."""
    degrees = num_clusters - 1
    stretched = math.sqrt(num_clusters / degrees) * _t_quantile(1 - (1 - LEVEL) / 2, degrees)
    return NormalDist().cdf(-stretched)


def _t_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / degrees**power for power, term in enumerate(terms)))
