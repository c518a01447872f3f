"""Weights & Biases: project `adapt` unless WANDB_PROJECT says otherwise; offline when the run is.

What it would gather by itself (command line, host, code, console, packages) is turned off: a
tracker gets what `About` holds, and numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from engine.cli.trackers import About


class WandB:
    """Sends numbers, each group with a step of its own."""

    def __init__(self, about: About) -> None:
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        about.folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "adapt"),
            name=about.run,
            group=about.recipe,
            config=dict(about.facts),
            dir=str(about.folder),
            mode="offline" if about.is_offline else None,
            settings=settings,
        )
        self._groups: set[str] = set()

    def log(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Send numbers."""
        if group not in self._groups:
            self._groups.add(group)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._run.log({f"{group}/{n}": v for n, v in values.items()} | {f"{group}/step": step})

    def close(self, *, has_failed: bool) -> None:
        """Send the rest."""
        self._run.finish(exit_code=int(has_failed))


def open_tracker(about: About) -> WandB:
    """Open a run."""
    return WandB(about)
