"""MLflow: experiment `adapt`, at MLFLOW_TRACKING_URI or, without one, in the folder of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from engine.cli.trackers import About

MAX_TEXT = 500  # characters of a param


class MLflow:
    """Sends numbers and params."""

    def __init__(self, about: About) -> None:
        import mlflow
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            about.folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(about.folder.resolve().as_uri())
        self._client: Any = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "adapt")
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = self._client.create_run(number, run_name=about.run).info.run_id
        for name, value in flat(about.facts):
            self._client.log_param(self._id, name, str(value)[:MAX_TEXT])

    def log(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Send numbers."""
        import time

        now = int(time.time() * 1000)
        metrics = [self._metric(f"{group}/{n}", v, now, step) for n, v in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, *, has_failed: bool) -> None:
        """Tell how the run ended."""
        self._client.set_terminated(self._id, "FAILED" if has_failed else "FINISHED")


def flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested mappings, each with its path."""
    if not isinstance(value, Mapping):
        return [(path, value)]
    dot = f"{path}." if path else ""
    return [leaf for name, item in value.items() for leaf in flat(item, f"{dot}{name}")]


def open_tracker(about: About) -> MLflow:
    """Open a run."""
    return MLflow(about)
