from __future__ import annotations

import random

import pytest

from engine.statistics.means import Strata, effect, mean


def test_the_mean_is_in_points_and_inside_its_interval():
    found = mean([0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.5], list("abcdefgh"), seed=1)

    assert found.mean == pytest.approx(56.25)
    assert found.ci_low < found.mean < found.ci_high
    assert (found.num_items, found.num_clusters) == (8, 8)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draw = random.Random(0)
    hits = 0
    for seed in range(200):
        images = [draw.random() for _ in range(25)]
        values = [float(draw.random() < image) for image in images for _ in range(3)]
        clusters = [number for number in range(25) for _ in range(3)]
        found = mean(values, clusters, seed=seed, num_draws=500)
        hits += found.ci_low <= 50 <= found.ci_high

    assert 0.90 <= hits / 200 <= 0.99


def test_tasks_of_one_image_count_as_one_witness():
    values = [0.0, 1.0, 0.25, 0.75, 1.0, 0.5, 0.0, 1.0]
    alone = mean(values, list(range(8)), seed=3)
    tripled = mean([v for v in values for _ in range(3)], sorted([*range(8)] * 3), seed=3)

    assert tripled.mean == alone.mean
    assert (tripled.ci_low, tripled.ci_high) == pytest.approx((alone.ci_low, alone.ci_high))


def test_two_strata_speak_for_the_whole_by_their_shares():
    # Half of the sample is of the stratum that holds a tenth of all.
    strata = Strata(["few"] * 10 + ["many"] * 10, {"few": 1, "many": 9})
    found = mean([1.0] * 10 + [0.0] * 10, list(range(20)), strata, seed=0)

    assert found.mean == pytest.approx(10.0)
    assert found.ci_low < 10
    assert 30 < found.ci_high < 45  # ten of one mind do not say that all are


def test_choosing_a_stratum_moves_the_mean_by_what_the_rest_is_worse():
    draw = random.Random(1)
    values = [float(draw.random() < 0.9) for _ in range(60)]
    values += [float(draw.random() < 0.3) for _ in range(60)]
    strata = Strata(["kept"] * 60 + ["dropped"] * 60, {"kept": 300, "dropped": 100})
    whole, found = (
        mean(values, list(range(120)), strata, seed=0),
        effect(values, list(range(120)), strata, "kept", seed=0),
    )
    kept = 100 * sum(values[:60]) / 60

    assert found.difference == pytest.approx(kept - whole.mean)
    assert 5 < found.ci_low < found.difference < found.ci_high < 25


def test_the_interval_of_an_effect_covers_the_truth_about_as_often_as_it_says():
    draw = random.Random(2)
    hits = 0
    for seed in range(150):
        values = [float(draw.random() < 0.8) for _ in range(40)]
        values += [float(draw.random() < 0.4) for _ in range(40)]
        strata = Strata(["kept"] * 40 + ["dropped"] * 40, {"kept": 3, "dropped": 1})
        found = effect(values, list(range(80)), strata, "kept", seed=seed, num_draws=400)
        hits += found.ci_low <= 10 <= found.ci_high

    assert 0.90 <= hits / 150 <= 0.99


def test_an_effect_on_few_images_is_not_known():
    strata = Strata(["kept", "dropped"], {"kept": 1, "dropped": 1})
    found = effect([1.0, 0.0], ["a", "b"], strata, "kept", seed=0)

    assert (found.difference, found.ci_low, found.ci_high) == (50, -50, 50)


def test_a_stratum_nobody_graded_leaves_the_whole_unknown():
    with pytest.raises(ValueError, match="no grades"):
        mean([1.0], ["a"], Strata(["few"], {"few": 1, "many": 9}), seed=0)


def test_equal_grades_leave_room_for_what_was_not_seen():
    few, many = (mean([1.0] * num, list(range(num)), seed=0) for num in (10, 100))

    assert (few.mean, few.ci_high) == (100.0, 100.0)
    assert 60 < few.ci_low < 70  # 1 - 0.025 ** (1 / 10) is 0.31, and few clusters widen it
    assert few.ci_low < many.ci_low < 98


def test_too_few_images_say_nothing_about_spread():
    found = mean([1.0, 0.5, 0.75], ["a", "b", "c"], seed=0)

    assert (found.ci_low, found.ci_high) == (0.0, 100.0)


def test_the_interval_stays_on_the_scale():
    found = mean([1.0] * 6 + [0.0], list(range(7)), seed=0)

    assert 0 <= found.ci_low < found.ci_high <= 100


def test_no_grades_have_no_mean():
    with pytest.raises(ValueError, match="no grades"):
        mean([], [], seed=0)
