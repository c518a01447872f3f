"""Every process of a run, found by a mark in its environment: also one that lost its parent."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "ADAPT_CHAOS_ROUND"


@dataclass(frozen=True)
class Process:
    pid: int
    words: tuple[str, ...]  # its command line

    def name(self) -> str:
        """Return what it is, for people: `engine`, or the node that it works on."""
        jobs = [word for word in self.words if word.endswith(".json")]
        if not jobs:
            return "engine" if "run" in self.words else "child"
        return jobs[0].partition("/jobs/")[2].removesuffix(".json")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def marked(mark: str) -> list[Process]:
    """Return the living processes with a mark, in order of their ids."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # A process may end between any two of these lines; a zombie has no environment.
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    found.append(Process(int(folder.name), tuple(words)))
    return sorted(found, key=lambda process: process.pid)


def wait_until_gone(mark: str, timeout_s: float) -> list[Process]:
    """Wait for all processes with a mark to end; return what is left."""
    end = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return left
