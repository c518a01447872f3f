"""What one command costs: processor time of its whole process tree, wall time, and what it said.

Processor time is what `wait4` reports for the child: its own and that of every descendant it waited
for. Beside wall time it is what a busy neighbour disturbs least.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMED_OUT = 124


@dataclass(frozen=True, slots=True)
class Cost:
    """One finished command."""

    cpu_s: float  # user and system, of the tree
    wall_s: float
    exit_code: int  # negative: the signal that ended it; TIMED_OUT: stopped by us
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    num: int


def cost(
    command: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    timeout_s: float = 600.0,
) -> Cost:
    """Run a command and return what it cost; a command past its time is stopped with its tree."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        child = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        is_late = threading.Event()
        timer = threading.Timer(timeout_s, _stop, (child.pid, is_late))
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - start
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        code = TIMED_OUT if is_late.is_set() else child.returncode
        texts = [_text(stream) for stream in (out, err)]
    return Cost(usage.ru_utime + usage.ru_stime, wall_s, code, *texts)


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the range of measurements."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def seconds(value: float) -> str:
    """Write a time so that three digits are seen."""
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.3g} s"


def _stop(pid: int, is_late: threading.Event) -> None:
    is_late.set()
    os.killpg(pid, signal.SIGKILL)


def _text(stream: object) -> str:
    stream.seek(0)  # type: ignore[attr-defined]
    return stream.read().decode(errors="replace")  # type: ignore[attr-defined]
