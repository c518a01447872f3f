"""What each node of a plan will probably take and make, and where each number comes from."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plan.estimate import Figure, Forecast, Measurement, estimate
from engine.plan.stage import Plan

_SECONDS_PER_HOUR = 3600


def forecasts(plan: Plan, measured: Sequence[Measurement]) -> dict[str, Forecast]:
    """Return the forecast of each node by id; `measured` is in order of time."""
    found = {}
    for node in plan.nodes:
        past = estimate(node, plan.recipe, measured)
        hours = Figure(past.wall_s / _SECONDS_PER_HOUR, past.basis) if past else None
        found[node.id] = Forecast(wall_h=hours)
    return found
