"""Answers of people as they came, line by line, and what they come to.

An answer is `{"at": ..., "task": ..., "row": {...}, "said": ..., "value": ...}`: what was said of a
row, under a rubric, as `skip` or as `reveal`; no value takes an answer back. `row` holds what the
row is to be told apart by. Other lines name the grader, or how rows were chosen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.plan import keys

Event = Mapping[str, Any]


@dataclass(slots=True)
class Graded:
    """What one grader has said of one row so far."""

    task: str
    facts: Mapping[str, Any]  # what the row is to be told apart by: its image, its set
    grades: dict[str, Any] = field(default_factory=dict)  # by rubric
    is_skipped: bool = False
    is_revealed: bool = False  # the grader has seen what the filter said: the grades are final
    graded_at: float = 0.0


def fold(events: Iterable[Event]) -> list[Graded]:
    """Return what a journal comes to, row by row, in the order in which they were first graded."""
    rows: dict[str, Graded] = {}
    for event in events:
        if "task" not in event:
            continue
        row = rows.setdefault(event["task"], Graded(event["task"], event.get("row", {})))
        row.graded_at = event["at"]
        if event["said"] == "skip":
            row.is_skipped = bool(event["value"])
        elif event["said"] == "reveal":
            row.is_revealed = True
        elif event["value"] is None:
            row.grades.pop(event["said"], None)
        else:
            row.grades[event["said"]] = event["value"]
            row.is_skipped = False
    return [row for row in rows.values() if row.grades or row.is_skipped]


def row_of(found: Graded, grader: str) -> dict[str, Any]:
    """Return a row of schemas/grades.schema.json."""
    return {
        "task": found.task,
        **found.facts,
        "grader": grader,
        "grades": found.grades,
        "is_skipped": found.is_skipped,
        "is_revealed": found.is_revealed,
        "graded_at": found.graded_at,
    }


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return events by their time, those that are told twice once."""
    known = {keys.canonical(event): event for event in events if _is_event(event)}
    return sorted(known.values(), key=lambda event: float(event["at"]))


def lines_of(path: Path) -> Iterator[Event]:
    """Yield the events of a journal; a line that a crash tore is passed over."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError):
                event = json.loads(line)
                if _is_event(event):
                    yield event


def _is_event(value: Any) -> bool:
    """Tell whether a line is one of a journal: it may come from elsewhere."""
    if not isinstance(value, dict) or not isinstance(value.get("at"), int | float):
        return False
    is_answer = isinstance(value.get("said"), str) and "value" in value
    row = value.get("row", {})
    return "task" not in value or (
        isinstance(value["task"], str) and is_answer and isinstance(row, dict)
    )


def end_line(path: Path) -> None:
    """End a line that a crash tore, so that the next one is whole."""
    with suppress(FileNotFoundError), path.open("rb+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
