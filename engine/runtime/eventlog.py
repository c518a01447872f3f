"""The event log of a run: one JSON line per event, appended by the run, read by anybody.

A line is written by one call, so a kill loses no earlier line. A reader takes no lock, needs no
right to write, and is not stopped by a line that was torn, damaged or written by a newer engine.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.runtime import events
from engine.runtime.events import Event, NodeProgress, NodeUsage

PROGRESS_EVERY_S = 2.0
USAGE_EVERY_S = 10.0
BLOCK_BYTES = 1 << 23
# Of these lines only the last one of a node tells where the node stands.
_PASSING = (b'{"type": "node_progress", ', b'{"type": "node_usage", ')


class EventLog:
    """Appends events to a file; of a node's progress only a line every other second."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._written_at: dict[tuple[type[Event], str], float] = {}
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, event: Event) -> str:
        """Write one line, by one call; return it, or nothing where it is not worth one."""
        if not self._is_due(event):
            return ""
        line = line_of(event)
        os.write(self._descriptor, line.encode())
        return line

    def close(self) -> None:
        """Bring the log to the disk and close it."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _is_due(self, event: Event) -> bool:
        if isinstance(event, NodeUsage):
            pause_s = USAGE_EVERY_S
        elif isinstance(event, NodeProgress) and event.done != event.total:
            pause_s = PROGRESS_EVERY_S
        else:
            return True
        kind = (type(event), event.node)
        # Also after a clock that was set back.
        if 0 <= event.time - self._written_at.get(kind, -math.inf) < pause_s:
            return False
        self._written_at[kind] = event.time
        return True


@dataclass(slots=True)
class LogReader:
    """Reads a log that may still grow, going on where it stopped.

    A last line without its end is left for the next call: it may be torn or still being written.
    """

    path: Path
    offset: int = 0
    num_unreadable: int = 0  # lines that were damaged, or of a newer engine

    def every(self) -> Iterator[Event]:
        """Yield every event since the last call."""
        for block in self._blocks():
            yield from self._parsed(block.splitlines())

    def latest(self) -> Iterator[Event]:
        """Yield the events since the last call, without progress that a later one made old.

        Where nodes stand comes out the same, many times faster: most of a long log is progress.
        """
        for block in self._blocks():
            yield from self._parsed(_without_old_progress(block.splitlines()))

    def _parsed(self, lines: list[bytes]) -> Iterator[Event]:
        for line in lines:
            try:
                yield events.from_json(json.loads(line))
            except (ValueError, RecursionError):
                self.num_unreadable += 1

    def _blocks(self) -> Iterator[bytes]:
        """Yield the whole lines since the last call, some megabytes at a time."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            rest = b""
            while data := file.read(BLOCK_BYTES):
                whole = data.rfind(b"\n") + 1
                if not whole:
                    rest += data
                    continue
                block, rest = rest + data[:whole], data[whole:]
                self.offset += len(block)
                yield block


def _without_old_progress(lines: list[bytes]) -> list[bytes]:
    last: dict[bytes, int] = {}
    for number, line in enumerate(lines):
        if line.startswith(_PASSING):
            # A quote inside a JSON string has a backslash before it: `", "` ends the name.
            kind, _, rest = line.partition(b'"node": "')
            last[kind[:22] + rest.partition(b'", "')[0]] = number
    kept = set(last.values())
    return [
        line for number, line in enumerate(lines) if number in kept or not line.startswith(_PASSING)
    ]


def line_of(event: Event) -> str:
    """Return the line of an event."""
    return json.dumps(events.to_json(event)) + "\n"


def read(path: Path) -> list[Event]:
    """Return every event of a log."""
    return list(LogReader(path).every())
