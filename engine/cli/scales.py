"""Weighs what a difference between two plans would take: hours, cost, rows, where known."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.forecast import Fleet, forecasts, sources
from engine.models._known import finder_of
from engine.plan.compare import NodeChange, PlanChanges
from engine.plan.estimate import Figure, Forecast
from engine.plan.stage import Plan
from engine.runtime import timings
from engine.runtime.store import Store


class Scales:
    """Forecasts of plans on what one store has measured; a plan is weighed once."""

    def __init__(self, store: Store, fleet: Fleet | None, folder: Path) -> None:
        self._store = store
        self._fleet = fleet
        self._models = finder_of(folder, os.environ)
        self._count = sources.counter(folder)
        self._measured = timings.measurements(store)
        self._known: dict[int, tuple[Plan, Mapping[str, Forecast]]] = {}

    def cost(self, plan: Plan, nodes: PlanChanges) -> dict[str, Any]:
        """Return what a plan would still have to do: hours and cost where they are known."""
        to_run = self._to_run(nodes.reruns)
        guesses = self._of(plan) if to_run else {}
        hours = _known(guesses[name].wall_h for name in to_run)
        prices = _known(guesses[name].cost for name in to_run)
        return {
            "num_to_run": len(to_run),
            "num_known": len(hours),
            "wall_h": sum(figure.value for figure in hours) if hours else None,
            "cost": sum(figure.value for figure in prices) if prices else None,
            "basis": sorted({figure.basis for figure in hours}),
        }

    def difference(self, old: Plan, new: Plan, nodes: PlanChanges) -> dict[str, Any]:
        """Return hours and cost of one change, and the training rows before and after it."""
        cost = self.cost(new, nodes)
        return {
            "wall_h": cost["wall_h"],
            "cost": cost["cost"],
            "rows": [self._training_rows(old), self._training_rows(new)],
        }

    def _training_rows(self, plan: Plan) -> float | None:
        """Return the rows of all mixes of a plan; None when one of them is not known."""
        guesses = self._of(plan)
        rows = [guesses[node.id].rows for node in plan.nodes if node.stage == "mix"]
        known = _known(rows)
        return sum(figure.value for figure in known) if len(known) == len(rows) else None

    def _to_run(self, nodes: Sequence[NodeChange]) -> list[str]:
        return [change.id for change in nodes if self._store.get(change.node.key) is None]

    def _of(self, plan: Plan) -> Mapping[str, Forecast]:
        if id(plan) not in self._known:
            found = forecasts(
                plan,
                self._measured,
                fleet=self._fleet,
                models=self._models,
                count_source=self._count,
            )
            self._known[id(plan)] = plan, found
        return self._known[id(plan)][1]


def _known(figures: Iterable[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]
