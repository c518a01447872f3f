"""Plans of real recipes to forecast."""

from __future__ import annotations

import functools
from pathlib import Path

from engine import package_data
from engine.cli import planning
from engine.plan.stage import Plan
from engine.runtime.store import Store


@functools.cache
def plan_of(name: str, *overrides: str) -> Plan:
    recipe = package_data.folder("recipes") / f"{name}.yaml"
    return planning.load_plan(str(recipe), list(overrides), Store(Path("/nowhere"))).plan
