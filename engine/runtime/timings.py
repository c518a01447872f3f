"""What nodes took in earlier runs, as a plan wants to know it.

Reads the event logs for just this: the types of all events take as long to import as everything
else that a warm plan does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.plan.estimate import Measurement
from engine.runtime.store import Store

RUNS_LOOKED_AT = 20
_FINISHED = b'"node_finished"'  # the name of `events.NodeFinished` in a log
_HEAD_CHARS = 40  # of a line: the name of its type is among them
_CHUNK_BYTES = 1 << 20


def measurements(store: Store) -> list[Measurement]:
    """Return what nodes took in the newest runs that worked at all, in order of time.

    What is damaged is passed over: a plan must not fail for what it need not know.
    """
    worked = [path.parent for path in store.runs.glob("*/run.json") if _has_worked(path.parent)]
    facts = {path: found for path in worked if (found := _facts(path)) is not None}
    order = sorted(facts, key=lambda path: (facts[path]["started_at"], path.name))
    return [found for path in order[-RUNS_LOOKED_AT:] for found in _of_run(path, facts[path])]


def _has_worked(run: Path) -> bool:
    return (run / "logs").exists()


def _facts(run: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((run / "run.json").read_bytes())
        is_whole = isinstance(found["started_at"], float) and isinstance(found["recipe"], str)
        return found if is_whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_run(run: Path, facts: dict[str, Any]) -> Iterator[Measurement]:
    settings = facts.get("settings")
    device = settings.get("device", "cpu") if isinstance(settings, dict) else "cpu"
    for line in _finished_lines(run / "events.jsonl"):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            yield _of_event(json.loads(line), facts["recipe"], run.name, str(device))


def _of_event(event: dict[str, Any], recipe: str, run: str, device: str) -> Measurement:
    """Return a measurement; a damaged line raises what Python raises for a wrong type or key."""
    return Measurement(
        recipe=recipe,
        node=event["node"],
        stage=event["node"].split("/", maxsplit=1)[0].split("@", maxsplit=1)[0],
        wall_s=float(event["wall_s"]),
        peak_memory_gb=float(event["peak_memory_gb"]),
        run=run,
        counts={name: number + 0 for name, number in event.get("counts", {}).items()},
        device=device,
    )


def _finished_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that tell of a finished node: one in a thousand of a long run."""
    try:
        file = path.open("rb")
    except OSError:
        return
    rest = b""
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            whole, end, torn = (rest + chunk).rpartition(b"\n")
            yield from _lines_with(_FINISHED, whole + end)
            rest = torn  # the very last may be torn for good


def _lines_with(word: bytes, lines: bytes) -> Iterator[bytes]:
    """Yield the lines that begin, but for a few characters, with a word."""
    place = lines.find(word)
    while place >= 0:
        start, end = lines.rfind(b"\n", 0, place) + 1, lines.index(b"\n", place)
        if place - start < _HEAD_CHARS:
            yield lines[start:end]
        place = lines.find(word, end)
