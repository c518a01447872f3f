from __future__ import annotations

import math
from itertools import combinations

import pytest

from engine.statistics.agreement import kappa, rarefied


def test_kappa_is_that_of_the_textbook():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.7 seen, 0.5 by chance.
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15

    assert kappa(first, second) == pytest.approx(0.4)


def test_a_small_step_on_a_scale_weighs_less_than_a_large_one():
    truth = [0, 1, 2, 3, 4]
    near = kappa(truth, [1, 1, 2, 3, 3], num_levels=5)
    far = kappa(truth, [4, 1, 2, 3, 0], num_levels=5)

    assert near is not None
    assert far is not None
    assert 0.7 < near < 1
    assert far < 0
    assert kappa(truth, truth, num_levels=5) == 1


def test_kappa_has_no_value_when_both_always_say_the_same():
    assert kappa([1, 1, 1], [1, 1, 1]) is None
    assert kappa([], []) is None


def test_graders_of_different_rows_cannot_agree():
    with pytest.raises(ValueError, match="different rows"):
        kappa([1], [1, 2])


def test_rarefaction_is_the_mean_over_all_samples_of_that_size():
    rows = "aaabbc"
    samples = list(combinations(rows, 3))
    expected = sum(len(set(sample)) for sample in samples) / math.comb(6, 3)

    assert rarefied([3, 2, 1], 3) == pytest.approx(expected)
    assert rarefied([3, 2, 1], 6) == pytest.approx(3)
    assert rarefied([3, 2], 3, 6) == pytest.approx(rarefied([3, 2, 1], 3) - 0.5)


def test_more_rows_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="cannot be drawn"):
        rarefied([1, 1], 3)
