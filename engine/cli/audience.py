"""Where the events of a run go: to its log, to whoever looks on, to machines that read along.

The log is the truth, and an error in writing it ends the run. What merely looks on never does: a
terminal or a pipe that has gone is let go of, and the run goes on.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from engine.runtime.eventlog import EventLog
from engine.runtime.events import Event

if TYPE_CHECKING:
    from engine.cli.terminal import Display


@dataclass(slots=True)
class Audience:
    """Hands every event to the log, the display and a reader of lines."""

    log: EventLog
    stream: IO[str]  # of the display
    display: Display | None = None
    lines: IO[str] | None = None  # takes the lines that the log takes

    def emit(self, event: Event) -> None:
        """Write an event down, then show it."""
        line = self.log.append(event)
        if self.lines is not None and line:
            say(line.rstrip("\n"), self.lines)
        if self.display is not None:
            try:
                self.display.handle(event)
            except OSError:
                let_go(self.stream)
                self.display = None

    def close(self) -> None:
        """Leave the terminal in order and the log on the disk."""
        if self.display is not None:
            with suppress(OSError):
                self.display.close()
        self.log.close()


def say(text: str, stream: IO[str]) -> None:
    """Print a line to a reader who may have gone."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        let_go(stream)


def let_go(stream: IO[str]) -> None:
    """Let what is written to a stream go nowhere from now on: its reader has gone."""
    with suppress(OSError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
