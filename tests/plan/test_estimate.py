from __future__ import annotations

from engine.plan.estimate import Estimate, Measurement, Past, estimate
from tests.runtime.fake_stages import PlanBuilder


def measured(recipe: str, node: str, wall_s: float) -> Measurement:
    return Measurement(recipe, node, "count", wall_s, 0.5)


def node():
    build = PlanBuilder()
    build.add("count")
    return build.plan().node("count")


def test_the_latest_measurement_of_the_same_node_counts():
    past = [measured("fake", "count", 1.0), measured("fake", "count", 2.0)]
    past += [measured("other", "count", 9.0)]

    assert estimate(node(), "fake", Past(past)) == Estimate(2.0, 0.5, "the same node before")


def test_another_node_of_the_stage_stands_in():
    past = [measured("other", "count/b", 9.0)]

    assert estimate(node(), "fake", Past(past)) == Estimate(9.0, 0.5, "`count/b` before")


def test_a_stage_that_never_ran_has_no_estimate():
    assert estimate(node(), "fake", Past([])) is None
