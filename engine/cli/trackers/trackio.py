"""Trackio: project `adapt`, in the folder that TRACKIO_DIR names or its own cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from engine.cli.trackers import About


class Trackio:
    """Keeps numbers in a local database."""

    def __init__(self, about: About) -> None:
        import trackio

        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "adapt"),
            name=about.run,
            group=about.recipe,
            config=dict(about.facts),
            embed=False,
            auto_log_gpu=False,  # what the run takes is logged as `usage`
            auto_log_cpu=False,
        )

    def log(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Keep numbers."""
        self._run.log({f"{group}/{name}": value for name, value in values.items()}, step=step)

    def close(self, *, has_failed: bool) -> None:
        """Write the rest."""
        self._run.finish()


def open_tracker(about: About) -> Trackio:
    """Open a run."""
    return Trackio(about)
