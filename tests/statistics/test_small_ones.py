from __future__ import annotations

import pytest

from engine.statistics.multiple import holm
from engine.statistics.paired import _t_quantile
from engine.statistics.single import wilson


def test_wilson_matches_the_worked_example() -> None:
    found = wilson(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662

    assert pytest.approx((found.ci_low, found.ci_high), abs=0.005) == (25.53, 36.62)


@pytest.mark.parametrize("num_right", [0, 10])
def test_wilson_leaves_room_at_both_ends(num_right: int) -> None:
    found = wilson(num_right, 10)

    assert 0 <= found.ci_low < found.ci_high <= 100
    assert found.ci_high - found.ci_low > 20


@pytest.mark.parametrize(("num_right", "num_items"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_share(num_right: int, num_items: int) -> None:
    with pytest.raises(ValueError, match="right of"):
        wilson(num_right, num_items)


def test_holm_steps_down_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)],
)
def test_quantiles_of_t_match_the_tables(degrees: int, expected: float) -> None:
    assert _t_quantile(0.975, degrees) == pytest.approx(expected, rel=0.02)
