from __future__ import annotations

import re

import pytest

from engine.rendering import charts
from tests.rendering.building import score


def ends(svg: str) -> list[float]:
    """Return where the small lines at the ends of the interval stand."""
    marks = re.findall(r'<line x1="([\d.]+)" y1="6" x2="\1" y2="14"', svg)
    return [float(mark) for mark in marks]


def test_an_interval_narrower_than_its_dot_still_shows_its_ends():
    low, high = ends(charts.interval_svg(score("b", 1.0, 3.0), 100.0, "gain"))

    assert charts.INTERVAL_WIDTH / 2 < low < high


def test_every_interval_stays_on_the_axis():
    rows = [score("b", -96.2, -61.5), score("b", 1.0, 99.0)]
    reach = charts.reach_of(rows)
    marks = [mark for row in rows for mark in ends(charts.interval_svg(row, reach, "open"))]

    assert len(marks) == 4
    assert all(0 < mark < charts.INTERVAL_WIDTH for mark in marks)


def test_the_scale_does_not_blow_up_noise():
    assert charts.reach_of([score("b", -0.1, 0.1)]) == charts.LEAST_REACH


def test_a_curve_of_many_steps_stays_small_and_keeps_its_end():
    svg = charts.curve_svg([(float(step), 1.0) for step in range(100_001)])

    assert svg.count(",") < 1100
    assert "step 100,000: loss 1.000" in svg


def test_held_out_losses_are_dots_on_the_same_axes():
    svg = charts.curve_svg([(1.0, 2.0), (11.0, 1.0)], [(6.0, 4.0), (11.0, 3.0)])
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)
    line = re.search(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"', svg)

    assert line is not None
    start_x, start_y, end_x, _ = map(float, line.groups())
    assert [float(x) for x, _ in dots] == [pytest.approx((start_x + end_x) / 2, abs=0.1), end_x]
    assert float(dots[0][1]) < float(dots[1][1]) < start_y


def test_labels_are_escaped():
    assert "<script>" not in charts.funnel_svg([("<script>", 1)])
    assert "<script>" not in charts.interval_svg(score("<script>", 1.0, 2.0), 10.0, "gain")
