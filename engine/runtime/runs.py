"""The folder of a run: its plan, its facts, its events, its logs. Finding runs again."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.diagnostics import Diagnostic, RequestError
from engine.plan import graph
from engine.plan.stage import Plan
from engine.runtime import locks, status
from engine.runtime.eventlog import LogReader
from engine.runtime.status import RunStatus
from engine.runtime.store import Store, write_whole


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder in a store."""

    path: Path

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def events_path(self) -> Path:
        """Where its event log is."""
        return self.path / "events.jsonl"

    @property
    def report_path(self) -> Path:
        """Where its HTML report is, once there is one."""
        return self.path / "report.html"

    def log_path(self, node_id: str) -> Path:
        """Where the output of a node's process is."""
        return self.path / "logs" / f"{node_id}.log"

    def facts(self) -> dict[str, Any]:
        """Return what was true when it began (schemas/run.schema.json)."""
        found: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return found

    def plan(self) -> Plan:
        """Return its plan. Raise RequestError if its file is damaged."""
        path = self.path / "plan.json"
        try:
            return graph.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "run the recipe again: its finished stages are kept, and found by their keys"
            raise damaged(self, path.name, hint) from error

    def status(self) -> RunStatus:
        """Return where it stands; a run whose process died without a word is `killed`."""
        return alive_or_killed(status.fold(LogReader(self.events_path).latest()))


def damaged(run: Run, name: str, hint: str) -> RequestError:
    """Return the error that a file of a run cannot be read."""
    message = f"run `{run.id}` cannot be read: its {name} is damaged or gone"
    return RequestError(Diagnostic("run-damaged", message, hint=hint))


def alive_or_killed(found: RunStatus) -> RunStatus:
    """Return the status with `running` put right if the process of the run is gone."""
    holder = dict(found.holder)
    if found.state == "running" and locks.is_visible(holder) and not locks.is_alive(holder):
        nodes = {name: status.stopped(node) for name, node in found.nodes.items()}
        return replace(found, state="killed", nodes=nodes)
    return found


def create(store: Store, plan: Plan, facts: Mapping[str, Any]) -> Run:
    """Make the folder of a new run, named `<recipe>-<time>-<4 hex>`, and write plan and facts."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run = Run(store.runs / f"{_slug(plan.recipe)}-{stamp}-{secrets.token_hex(2)}")
    run.path.mkdir(parents=True)
    write_whole(run.path / "plan.json", json.dumps(graph.to_json(plan), indent=1) + "\n")
    whole = {"run": run.id, "recipe": plan.recipe, "started_at": time.time(), **facts}
    write_whole(run.path / "run.json", json.dumps(whole, indent=1, sort_keys=True) + "\n")
    return run


def all_runs(store: Store) -> list[Run]:
    """Return every run of a store, oldest first; one whose facts are damaged is passed over."""
    found = [Run(path.parent) for path in store.runs.glob("*/run.json")]
    started_at = {run: when for run in found if (when := _started_at(run)) is not None}
    return sorted(started_at, key=lambda run: (started_at[run], run.id))


def newest(store: Store, recipe_path: Path | None = None) -> Run | None:
    """Return the newest run, or the newest one of a recipe file; None if there is none."""
    for run in reversed(all_runs(store)):
        given = run.facts().get("recipe_path")
        if recipe_path is None or (given and Path(given).resolve() == recipe_path.resolve()):
            return run
    return None


def find(store: Store, name: str) -> Run | None:
    """Return the run of an id or of its unique beginning, or the newest run of a recipe file."""
    if (store.runs / name / "run.json").is_file():
        return Run(store.runs / name)
    if Path(name).is_file():
        return newest(store, Path(name))
    matching = [run for run in all_runs(store) if run.id.startswith(name)]
    return matching[0] if len(matching) == 1 else None


def _started_at(run: Run) -> float | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(run.facts()["started_at"])
    return None


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "run"
