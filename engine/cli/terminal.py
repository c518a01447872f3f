"""Shows a run while it goes: a live view on a terminal, a few timestamped lines everywhere else."""

from __future__ import annotations

import io
import os
import time
from typing import IO, Protocol

from engine.cli import tables
from engine.cli.overview import Overview
from engine.runtime import events
from engine.runtime.events import Event, NodeEvent
from engine.runtime.status import NodeStatus

LINE_EVERY_S = 15.0
TOTAL_EVERY_S = 60.0


class Display(Protocol):
    """Something that shows events."""

    def handle(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Leave the terminal in order."""


def display(stream: IO[str], run: Overview, *, is_quiet: bool = False) -> Display:
    """Return a live view for a terminal and lines for everything else."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a message may have any letters
    if is_quiet:
        return Failures(stream)
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from engine.cli.live import LiveView

        return LiveView(stream, run)
    return Lines(stream, run)


class Failures:
    """A line for each node that fails, and no other."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def handle(self, event: Event) -> None:
        """Print a line for a failure."""
        if isinstance(event, events.NodeFailed):
            line = f"{clock(event.time)} {event.node}: {told(event, NodeStatus())}"
            print(tables.visible(line), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: every line is out already."""


class Lines:
    """One line when a node starts, now and then, and when it ends; one for the run each minute."""

    def __init__(self, stream: IO[str], run: Overview) -> None:
        self._stream = stream
        self._run = run
        self._shown_at: dict[str, float] = {}
        self._total_at: float | None = None

    def handle(self, event: Event) -> None:
        """Print a line if the event is worth one."""
        self._run.add(event)
        if isinstance(event, events.RunStarted | events.RunFinished | events.RunStopped):
            return
        node = self._run.nodes[event.node]
        if isinstance(event, events.NodeProgress):
            text = self._progress(event) if self._is_due(event) else ""
        else:
            text = told(event, node)
        if text:
            self._print(event.time, f"{event.node}: {text}")
        self._tell_total(event.time)

    def close(self) -> None:
        """Do nothing: every line is out already."""

    def _print(self, when: float, text: str) -> None:
        print(f"{clock(when)} {tables.visible(text)}", file=self._stream, flush=True)

    def _progress(self, event: events.NodeProgress) -> str:
        pace = self._run.paces[event.node]
        parts = [tables.amount(event.done, event.total, event.unit), *pace.parts()]
        return ", ".join(parts)

    def _is_due(self, event: events.NodeProgress) -> bool:
        """Tell whether to print progress: the more nodes are at work, the more seldom."""
        pause_s = LINE_EVERY_S * max(1.0, len(self._run.lively) / 4)
        if event.time - self._shown_at.setdefault(event.node, event.time) < pause_s:
            return False
        self._shown_at[event.node] = event.time
        return True

    def _tell_total(self, now: float) -> None:
        if self._total_at is None:
            self._total_at = now
        if now - self._total_at < TOTAL_EVERY_S or not self._run.lively:
            return
        self._total_at = now
        total, left = self._run.total(), self._run.time_left(now)
        text = f"{total.num_good:,} of {total.num:,} nodes done, {len(self._run.lively):,} at work"
        self._print(now, f"{text}, {left}" if left else text)


def clock(when: float) -> str:
    """Return the time of day of an event."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def told(event: NodeEvent, node: NodeStatus) -> str:
    """Return what to say about an event; nothing for a cached node, of which there may be many."""
    match event:
        case events.NodeStarted():
            return "started"
        case events.NodeWaiting():
            return "another run is at work on it; waiting for its result"
        case events.NodeLinked():
            return "linked: its inputs came out equal"
        case events.NodeFinished():
            amount = tables.amount(node.done, node.total, node.unit)
            return f"done in {tables.duration(event.wall_s)}" + (f", {amount}" if amount else "")
        case events.NodeFailed():
            return f"FAILED: {event.message}"
        case events.NodeSkipped():
            return f"skipped: {event.reason}"
        case events.NodeRetried():
            pause = f" in {tables.duration(event.wait_s)}" if event.wait_s else ""
            return f"again{pause} (attempt {event.attempt + 1}): {event.reason}"
        case events.NodeCached() | events.NodeProgress() | events.NodeUsage():
            return ""
