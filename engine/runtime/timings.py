"""What nodes took in earlier runs, as a plan wants to know it.

Reads the event logs for just this: the types of all events take as long to import as everything
else that a warm plan does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.plan.estimate import Measurement
from engine.runtime.store import Store

RUNS_LOOKED_AT = 20
_FINISHED = b'"node_finished"'  # the name of `events.NodeFinished` in a log


def measurements(store: Store) -> list[Measurement]:
    """Return what nodes took in the newest runs that worked at all, in order of time."""
    worked = [path.parent for path in store.runs.glob("*/run.json") if _has_worked(path.parent)]
    facts = {path: json.loads((path / "run.json").read_bytes()) for path in worked}
    order = sorted(worked, key=lambda path: (facts[path]["started_at"], path.name))
    return [found for path in order[-RUNS_LOOKED_AT:] for found in _of_run(path, facts[path])]


def _has_worked(run: Path) -> bool:
    return (run / "logs").exists()


def _of_run(run: Path, facts: dict[str, Any]) -> Iterator[Measurement]:
    device = facts.get("settings", {}).get("device", "cpu")
    try:
        lines = (run / "events.jsonl").read_bytes().split(b"\n")[:-1]  # the last may be torn
    except FileNotFoundError:
        return
    for line in lines:
        if _FINISHED in line[:40]:
            event = json.loads(line)
            yield Measurement(
                recipe=facts["recipe"],
                node=event["node"],
                stage=event["node"].split("/", maxsplit=1)[0].split("@", maxsplit=1)[0],
                wall_s=event["wall_s"],
                peak_memory_gb=event["peak_memory_gb"],
                run=run.name,
                counts=event.get("counts", {}),
                device=device,
            )
