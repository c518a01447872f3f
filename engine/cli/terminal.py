"""Shows a run while it goes: bars on a terminal, a few timestamped lines everywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import IO, Any, Protocol

from engine.cli import tables
from engine.runtime import events, status
from engine.runtime.events import Event, NodeEvent
from engine.runtime.status import NodeStatus

LINE_EVERY_S = 15.0
PACE_S = 30.0


class Display(Protocol):
    """Something that shows events."""

    def handle(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Leave the terminal in order."""


def display(stream: IO[str]) -> Display:
    """Return bars for a terminal and lines for everything else."""
    if stream.isatty():
        return Bars(stream)
    return Lines(stream, time.strftime)


class Lines:
    """One line when a node starts, now and then, and when it ends."""

    def __init__(self, stream: IO[str], clock: Callable[[str], str]) -> None:
        self._stream = stream
        self._clock = clock
        self._nodes: dict[str, NodeStatus] = {}
        self._shown_at: dict[str, float] = {}
        self._paces: dict[str, Pace] = {}

    def handle(self, event: Event) -> None:
        """Print a line if the event is worth one."""
        if isinstance(event, events.RunStarted | events.RunFinished | events.RunStopped):
            return
        before = self._nodes.get(event.node, NodeStatus())
        node = self._nodes[event.node] = status.node_after(before, event)
        if isinstance(event, events.NodeProgress):
            text = self._paces.setdefault(event.node, Pace()).text(event)
            if not self._is_due(event):
                return
        else:
            text = told(event, node)
        if text:
            print(f"{self._clock('%H:%M:%S')} {event.node}: {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: every line is out already."""

    def _is_due(self, event: events.NodeProgress) -> bool:
        if event.time - self._shown_at.setdefault(event.node, event.time) < LINE_EVERY_S:
            return False
        self._shown_at[event.node] = event.time
        return True


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


class Pace:
    """How fast a node is, over the last half minute: start-up and rows read back are no work."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def text(self, event: events.NodeProgress) -> str:
        """Take in progress; return how far the node is, its rate and the time left."""
        self._seen.append((event.time, event.done))
        while len(self._seen) > 2 and self._seen[0][0] < event.time - PACE_S:
            self._seen.popleft()
        parts = [tables.amount(event.done, event.total, event.unit)]
        since, done = self._seen[0]
        if event.done > done and event.time > since:
            rate = (event.done - done) / (event.time - since)
            parts.append(f"{rate:.1f} {event.unit}/s")
            if event.total:
                parts.append(f"{tables.duration((event.total - event.done) / rate)} left")
        return ", ".join(parts)


class Bars:
    """A bar per running node; a line stays for each that has ended."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._progress: Any = Progress(
            TextColumn("  {task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[detail]}"),
            console=Console(file=stream, highlight=False),
            refresh_per_second=4,
            transient=True,
        )
        self._bars: dict[str, Any] = {}
        self._nodes: dict[str, NodeStatus] = {}
        self._paces: dict[str, Pace] = {}
        self._width = 0
        self._is_open = False

    def handle(self, event: Event) -> None:
        """Move the bars."""
        if isinstance(event, events.RunStarted):
            self._width = max(map(len, event.nodes), default=0)
        if isinstance(event, events.RunStarted | events.RunFinished | events.RunStopped):
            return
        node = status.node_after(self._nodes.get(event.node, NodeStatus()), event)
        self._nodes[event.node] = node
        if isinstance(event, events.NodeCached | events.NodeUsage):
            return
        if not self._is_open:
            self._progress.start()
            self._is_open = True
        if isinstance(event, events.NodeStarted):
            name = event.node.ljust(self._width)
            self._bars[event.node] = self._progress.add_task(name, total=None, detail="starting")
        elif isinstance(event, events.NodeWaiting | events.NodeRetried):
            if event.node not in self._bars:
                return
            self._progress.update(self._bars[event.node], detail=told(event, node))
        elif isinstance(event, events.NodeProgress):
            self._progress.update(
                self._bars[event.node],
                completed=event.done,
                total=event.total,
                detail=self._paces.setdefault(event.node, Pace()).text(event),
            )
        else:
            self._end(event, node)

    def _end(self, event: NodeEvent, node: NodeStatus) -> None:
        if event.node in self._bars:
            self._progress.remove_task(self._bars.pop(event.node))
        mark = "✗" if node.state == "failed" else "-" if node.state == "skipped" else "✓"
        line = f"{mark} {event.node.ljust(self._width)} {told(event, node)}"
        self._progress.console.print(line, markup=False)

    def refresh(self) -> None:
        """Draw the bars now."""
        self._progress.refresh()

    def close(self) -> None:
        """Remove the bars."""
        if self._is_open:
            self._progress.stop()
