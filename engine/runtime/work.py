"""One node that is being worked on: its processes, what is still to start, what it took so far.

A node is one process, or several parts side by side and then one process that puts their shards
together. Only the process that was lost is started again: the shards of the others stay.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from engine.plan.stage import Node, Part
from engine.runtime import retries
from engine.runtime.child import End, Worker
from engine.runtime.retries import Retry
from engine.runtime.scheduler import Placement

WHOLE = None  # instead of a part: the process that publishes


@dataclass(slots=True)
class Process:
    """A running process of a node."""

    part: Part | None
    worker: Worker
    placement: Placement
    done: int = 0
    total: int | None = None


@dataclass(slots=True)
class Work:
    """The processes of one node."""

    node: Node
    num_parts: int
    attempt: int = 0  # retries so far
    num_counted: int = 0  # of them, those of which there may be so many
    shrink: int = 0
    num_crashes: Counter[Part | None] = field(default_factory=Counter)
    crashed: set[Part | None] = field(default_factory=set)  # whose last process ended by a crash
    _waiting: list[Part | None] = field(default_factory=list)  # to be started
    _processes: list[Process] = field(default_factory=list)
    _ended: list[Process] = field(default_factory=list)  # parts that did their share
    _not_before: float = 0.0
    _started_at: float | None = None
    _cpu_s: float = 0.0
    _peak_memory_gb: float = 0.0

    def __post_init__(self) -> None:
        """Plan the first processes."""
        parts = [Part(index, self.num_parts) for index in range(self.num_parts)]
        self._waiting = [*parts] if self.num_parts > 1 else [WHOLE]

    def has_next(self, now: float) -> bool:
        """Tell whether a process should be started now; `now` is monotonic."""
        return bool(self._waiting) and now >= self._not_before

    @property
    def next(self) -> Part | None:
        """The next part to start, or WHOLE; `add` takes it."""
        return self._waiting[0]

    def add(self, part: Part | None, worker: Worker, placement: Placement) -> bool:
        """Take in a started process; return whether it is the first of its attempt."""
        is_first = not self._processes and not self._ended
        self._waiting.remove(part)
        self._processes.append(Process(part, worker, placement))
        self._started_at = self._started_at or time.monotonic()
        return is_first

    def workers(self) -> list[Worker]:
        """Return the running processes."""
        return [process.worker for process in self._processes]

    def placements(self) -> list[Placement]:
        """Return what is taken; a process that waits for another run takes a GPU at most."""
        return [p.placement for p in self._processes if p.placement.gpus or not p.worker.is_waiting]

    def progress(self, worker: Worker, done: int, total: int | None) -> tuple[int, int | None]:
        """Take in how far a process is; return how far the node is, over all its parts."""
        process = self._process(worker)
        process.done, process.total = done, total
        if process.part is WHOLE:
            return done, total
        known = [*self._ended, *self._processes]
        totals = [other.total for other in known if other.total is not None]
        is_known = len(totals) == self.num_parts
        return sum(other.done for other in known), sum(totals) if is_known else None

    def remove(self, worker: Worker, end: End) -> Part | None:
        """Take out a process that has ended; return its part."""
        process = self._process(worker)
        self._processes.remove(process)
        self._ended.append(process)
        self._cpu_s += end.cpu_s
        self._peak_memory_gb = max(self._peak_memory_gb, end.peak_memory_gb)
        return process.part

    def end_part(self) -> None:
        """Plan the last process once every part has done its share."""
        if not self._processes and not self._waiting:
            self._waiting = [WHOLE]

    def may_retry(self, part: Part | None, retry: Retry, most: int) -> bool:
        """Tell whether another attempt is left; crashes of a part that isolates count apart."""
        if retry.is_crash and self.node.needs.isolates:
            return self.num_crashes[part] < retries.MAX_CRASHES
        return self.num_counted < most

    def retry(self, part: Part | None, first_pause_s: float, retry: Retry) -> float:
        """Plan a part (or WHOLE) anew; return the pause before it in seconds."""
        self._ended = [process for process in self._ended if process.part != part]
        self.shrink += int(retry.shrinks)
        self.crashed.discard(part)
        if retry.is_crash:
            self.crashed.add(part)
            self.num_crashes[part] += 1
        is_free = retry.is_crash and self.node.needs.isolates
        self.attempt += 1
        self.num_counted += not is_free
        pause_s = first_pause_s if is_free else retries.pause_s(self.num_counted, first_pause_s)
        self._not_before = time.monotonic() + pause_s
        self._waiting.append(part)
        return pause_s

    def costs(self) -> dict[str, float]:
        """Return what the node took, all attempts and parts together; memory of the largest."""
        began = self._started_at or time.monotonic()
        return {
            "wall_s": round(time.monotonic() - began, 3),
            "cpu_s": round(self._cpu_s, 3),
            "peak_memory_gb": round(self._peak_memory_gb, 4),
        }

    def _process(self, worker: Worker) -> Process:
        return next(process for process in self._processes if process.worker is worker)
