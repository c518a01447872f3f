"""Runs a fake plan, in this process or (as a script) in one that a test can kill."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.plan import graph
from engine.plan.stage import Node, Plan
from engine.runtime import opening, runs
from engine.runtime.eventlog import EventLog
from engine.runtime.events import Event
from engine.runtime.executor import Executor, Outcome
from engine.runtime.local import LocalLauncher, start
from engine.runtime.machine import Settings
from engine.runtime.ray import RayLauncher
from engine.runtime.runs import Run
from tests.runtime.fake_stages import STAGES

WORKER = (str(Path(__file__).with_name("fake_worker.py")),)


def execute(
    plan: Plan,
    root: Path,
    *,
    threads: int = 2,
    num_gpus: int = 0,
    ray: str | None = None,
    remote: str = "",
    watch: Callable[[Event], None] | None = None,
) -> tuple[Run, Outcome]:
    store = opening.open_store(root, remote)
    run = runs.create(store, plan, {})
    log = EventLog(run.events_path)

    def emit(event: Event) -> None:
        log.append(event)
        if watch is not None:
            watch(event)

    settings = Settings(
        store=root,
        remote=remote,
        threads=threads,
        num_gpus=num_gpus,
        is_offline=True,
        retry_pause_s=0.05,
    )
    if ray is not None:
        device = "cuda" if num_gpus else "cpu"
        settings = replace(settings, executor="ray", ray_address=ray, device=device)
    launcher = _launcher(settings, run)
    try:
        outcome = Executor(plan, store, run, settings, root, launcher, emit, reads=_reads).execute()
    finally:
        launcher.close()
        log.close()
    return run, outcome


def _launcher(settings: Settings, run: Run) -> LocalLauncher | RayLauncher:
    if settings.executor == "local":
        return LocalLauncher(settings, WORKER, run.path, start)
    launcher = RayLauncher(settings, WORKER)
    launcher.connect()
    return launcher


def _reads(node: Node) -> Mapping[str, tuple[str, ...]]:
    return STAGES[node.stage].reads(node.params)


def states(run: Run) -> dict[str, str]:
    return {name: node.state for name, node in run.status().nodes.items()}


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        found = graph.from_json(json.load(file))
    num_gpus = int((*sys.argv, 0)[3])
    address = (*sys.argv, "", "")[4] or None
    remote = sys.argv[5] if len(sys.argv) > 5 else ""
    outcome = execute(found, Path(sys.argv[2]), num_gpus=num_gpus, ray=address, remote=remote)[1]
    raise SystemExit(128 + outcome.signal if outcome.signal else 0)
