"""Starts the process of a node as a copy of this one: what is imported here is there already.

A node of a rehearsal computes for a second, after ten seconds of imports. So they are done once,
before the first node, and each node's process begins with them. A copy has one thread, and what
others held stays locked in it for good: who forks must not have computed with several threads.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from engine.runtime.local import Begin, Child, GpuMemory

Work = Callable[[list[str]], int]  # arguments of a worker -> exit code
_HIGHEST = 65536  # descriptors above it are not ours


def is_possible() -> bool:
    """Tell whether copies of a process with large libraries work here: not on macOS."""
    return sys.platform.startswith("linux")


@dataclass(slots=True)
class Forked:
    """A copy of this process, as `subprocess.Popen` would show it."""

    pid: int
    stdin: IO[bytes] | None
    returncode: int | None = None


def beginner(work: Work) -> Begin:
    """Return what starts a worker as a copy; the last word of its command is the path of the job.

    `work` gets that path and the number of the message pipe.
    """

    def begin(
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str],
        gpu_memory: GpuMemory,
        held: Sequence[int] = (),
    ) -> Child:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        reader, writer = os.pipe()
        lifeline, end_of_lifeline = os.pipe()
        os.set_blocking(reader, False)
        sys.stdout.flush()
        sys.stderr.flush()
        with log_path.open("ab") as log:
            pid = os.fork()
            if pid == 0:
                _take_place(lifeline, log.fileno(), (writer, *held))
                os.environ.update(environment)
                _work(work, [command[-1], str(writer)])
        os.close(writer)
        os.close(lifeline)
        process = Forked(pid, os.fdopen(end_of_lifeline, "wb"))
        return Child(log_path, process, reader, time.monotonic(), gpu_memory)

    return begin


def _take_place(lifeline: int, log: int, kept: Sequence[int]) -> None:
    """Leave the terminal and everything of the parent, the lifelines of its children above all."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(lifeline, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    first = 3
    for descriptor in (*sorted(kept), _HIGHEST):
        os.closerange(first, descriptor)
        first = descriptor + 1


def _work(work: Work, arguments: list[str]) -> NoReturn:
    """Work, and end without what the parent would do at its end."""
    code = 1
    try:
        code = work(arguments)
    except BaseException:  # top of the process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
