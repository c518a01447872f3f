"""The live view of a run on a terminal: a frame, drawn four times a second by a thread of its own.

The run itself only hands over events: a terminal that is slow, stopped or gone holds nothing up.
What must not scroll away unseen (failures, retries) is printed above the frame and stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO, Any

from engine.cli.frame import ASCII, STYLES, UNICODE, Frame
from engine.cli.overview import Overview
from engine.runtime import events
from engine.runtime.events import Event

EVERY_S = 0.25
PATIENCE_S = 2.0  # for a terminal that takes nothing, at the end


class LiveView:
    """Shows an overview; `handle` never waits for the terminal."""

    def __init__(
        self, stream: IO[str], run: Overview, clock: Callable[[], float] = time.time
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._run = run
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: list[tuple[str, str]] = []  # lines that stay, and the state they tell
        self._over = threading.Event()
        self._console = Console(file=stream, highlight=False, soft_wrap=False)
        is_ascii = not (self._console.encoding or "").startswith("utf")
        self._signs = ASCII if is_ascii else UNICODE
        self._live = Live(
            get_renderable=self._frame,
            console=self._console,
            auto_refresh=False,
            vertical_overflow="crop",
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._thread = threading.Thread(target=self._draw, name="live view", daemon=True)

    def handle(self, event: Event) -> None:
        """Take in an event; it is drawn a moment later."""
        with self._lock:
            self._run.add(event)
            if isinstance(event, events.NodeFailed):
                self._kept.append((f"{event.node}: {event.message}", "failed"))
            elif isinstance(event, events.NodeRetried):
                self._kept.append((f"{event.node}: tried again: {event.reason}", "retrying"))
        is_news = not isinstance(event, events.RunStarted | events.NodeCached)
        if is_news and self._thread.ident is None and not self._over.is_set():
            self._thread.start()

    def close(self) -> None:
        """Draw the last frame, which stays, and leave the terminal in order."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)

    def _draw(self) -> None:
        try:
            self._console.print()
            with self._live:
                while not self._over.wait(EVERY_S):
                    self._refresh()
                self._refresh()
        except OSError:
            return  # the terminal has gone; the run goes on

    def _refresh(self) -> None:
        from rich.text import Text

        with self._lock:
            kept, self._kept = self._kept, []
        for line, state in kept:
            sign = self._signs.states[state]
            self._console.print(Text(f"{sign} {line}", style=STYLES[state]))
        self._live.refresh()

    def _frame(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        width, height = self._console.size
        with self._lock:
            lines = Frame(self._run, self._clock(), width, height, self._signs).lines()
        return Group(*(Text.assemble(*line, no_wrap=True, overflow="crop") for line in lines))
