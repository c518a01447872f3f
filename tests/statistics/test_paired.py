from __future__ import annotations

import time
from itertools import product

import pytest

from engine.statistics import paired
from engine.statistics.paired import compare


def test_differences_are_in_points() -> None:
    found = compare([0, 0, 1, 1], [1, 1, 1, 1], ["a", "b", "c", "d"], seed=1)

    assert (found.base, found.adapted, found.difference) == (50.0, 100.0, 50.0)
    assert (found.num_items, found.num_clusters) == (4, 4)
    assert found.ci_low <= 50 <= found.ci_high


def test_equal_answers_show_no_gain() -> None:
    found = compare([0, 1, 1], [0, 1, 1], ["a", "b", "c"], seed=1)

    assert (found.difference, found.ci_low, found.ci_high, found.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("num_clusters", range(1, paired.MIN_CLUSTERS))
def test_a_handful_of_clusters_says_nothing_about_spread(num_clusters: int) -> None:
    found = compare([0] * 50, [1] * 50, [i % num_clusters for i in range(50)], seed=1)

    assert (found.ci_low, found.ci_high) == (-100.0, 100.0)
    assert found.p > 0.05


def test_the_same_seed_gives_the_same_interval() -> None:
    base, adapted = [0, 1] * 60, [1, 0, 1] * 40
    clusters = list(range(120))

    assert compare(base, adapted, clusters, seed=3) == compare(base, adapted, clusters, seed=3)
    assert compare(base, adapted, clusters, seed=3) != compare(base, adapted, clusters, seed=4)


def test_few_clusters_get_every_sign_flip() -> None:
    gains = [3, 2, 1, 1, -1, 2]
    base = [0.0] * 6
    expected = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True)))
        for signs in product((1, -1), repeat=6)
    ]

    found = compare(base, gains, range(6), seed=1)

    assert found.p == sum(total >= sum(gains) for total in expected) / 64


def test_many_clusters_agree_with_the_exact_test() -> None:
    base, adapted = [0.0] * 12, [1.0] * 9 + [-1.0] * 3
    exact = compare(base, adapted, range(12), seed=1)

    drawn = compare(base, adapted, range(12), seed=1, num_draws=4000)

    assert drawn.p == pytest.approx(exact.p, abs=0.02)
    assert drawn.p != exact.p


def test_questions_about_one_image_are_not_independent() -> None:
    base, adapted = [0.0] * 200, ([1.0] * 10 + [0.0] * 10) * 10
    by_item = compare(base, adapted, range(200), seed=1)
    by_image = compare(base, adapted, [item // 10 for item in range(200)], seed=1)

    assert by_item.difference == by_image.difference
    assert by_image.ci_high - by_image.ci_low > 2 * (by_item.ci_high - by_item.ci_low)


def test_chunks_do_not_change_what_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapted = [0.0, 1.0] * 40, [1.0, 1.0, 0.0, 1.0] * 20
    whole = compare(base, adapted, range(80), seed=1)
    monkeypatch.setattr(paired, "MAX_CHUNK_CELLS", 80 * 7)

    assert whole == compare(base, adapted, range(80), seed=1)


@pytest.mark.parametrize(
    ("base", "adapted", "clusters", "reason"),
    [
        ([], [], [], "there are no items to compare"),
        ([1.0], [1.0, 0.0], ["a"], "base, adapted and clusters differ in length"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    base: list[float], adapted: list[float], clusters: list[str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        compare(base, adapted, clusters, seed=1)


@pytest.mark.parametrize("num_clusters", [8, 40])
def test_intervals_cover_the_truth_as_often_as_they_say(num_clusters: int) -> None:
    import numpy as np

    rng = np.random.default_rng(7)
    truth, num_trials, hits = 0.15, 300, 0
    for trial in range(num_trials):
        of_image = np.repeat(rng.normal(truth, 0.2, num_clusters), 4)
        gain = of_image + rng.normal(0, 0.3, num_clusters * 4)
        clusters = np.repeat(np.arange(num_clusters), 4)
        found = compare(
            [0.0] * len(gain), gain.tolist(), clusters.tolist(), seed=trial, num_draws=800
        )
        hits += found.ci_low <= 100 * truth <= found.ci_high

    assert 0.91 <= hits / num_trials <= 0.985


def test_p_values_are_uniform_when_nothing_differs() -> None:
    import numpy as np

    rng = np.random.default_rng(5)
    found = [
        compare([0.0] * 30, rng.normal(0, 1, 30).tolist(), range(30), seed=trial, num_draws=500).p
        for trial in range(300)
    ]

    assert 0.02 <= sum(p <= 0.05 for p in found) / 300 <= 0.09
    assert 0.4 <= sum(found) / 300 <= 0.6


@pytest.mark.alone
def test_two_thousand_items_take_about_a_second() -> None:
    base, adapted = [0.0, 1.0] * 1000, [1.0, 1.0, 0.0, 1.0] * 500

    started = time.process_time()
    compare(base, adapted, range(2000), seed=1)

    assert time.process_time() - started < 3  # 0.6 s on a free core
