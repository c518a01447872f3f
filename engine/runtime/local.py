"""Runs the processes of a plan on this machine."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

from engine.runtime import child, machine
from engine.runtime.child import End, Usage
from engine.runtime.gpus import GpuLocks
from engine.runtime.machine import Settings
from engine.runtime.scheduler import Capacity, Placement
from engine.runtime.store import write_whole
from engine.runtime.worker import Job

Begin = Callable[[Sequence[str], Path, Mapping[str, str], "GpuMemory", Sequence[int]], "Child"]
LAST_TYPES = ("finished", "cached", "part", "damaged", "failed")
GPU_EVERY_S = 10.0
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class GpuMemory:
    """GPU memory by process, asked of the driver now and then: the question takes a while."""

    def __init__(self, num_gpus: int) -> None:
        self._has_gpu = num_gpus > 0
        self._found: dict[int, float] = {}
        self._asked_at = float("-inf")

    def memory_gb(self) -> dict[int, float]:
        """Return what was seen last."""
        if self._has_gpu and time.monotonic() - self._asked_at > GPU_EVERY_S:
            self._asked_at = time.monotonic()
            self._found = machine.gpu_memory_gb_by_process()
        return self._found


class Process(Protocol):
    """A process that was started: what `subprocess.Popen` tells of one."""

    @property
    def pid(self) -> int:
        """Its number."""

    stdin: IO[bytes] | None
    returncode: Any


@dataclass(slots=True)
class LocalLauncher:
    """Starts processes on this machine; `command` is what makes an interpreter a worker."""

    settings: Settings
    command: Sequence[str]
    run_folder: Path
    begin: Begin
    _capacity: Capacity | None = None
    _memory: GpuMemory = field(init=False)
    _locks: GpuLocks = field(init=False)
    _started: list[Child] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        """Ask the driver nothing yet."""
        self._memory = GpuMemory(self.settings.num_gpus)
        names = [child.gpu_name(os.environ, gpu) for gpu in range(self.settings.num_gpus)]
        self._locks = GpuLocks(names)

    def capacity(self) -> Capacity:
        """Return what this machine has for the run; memory is what was free at its start."""
        if self._capacity is None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            num_gpus = self.settings.num_gpus
            sizes = machine.gpu_sizes_gb(visible) if num_gpus else ()
            self._capacity = Capacity(
                self.settings.threads,
                num_gpus,
                machine.free_memory_gb(),
                sizes if len(sizes) == num_gpus else (),
            )
        if not self.settings.num_gpus:
            return self._capacity
        return replace(self._capacity, busy_gpus=self._locks.busy(self._ours()))

    def _ours(self) -> set[int]:
        """Return the GPUs that living processes of this run hold."""
        return {gpu for started in self._started if not started.is_closed for gpu in started.gpus}

    def start(self, job: Job, placement: Placement, log_path: Path) -> Child | None:
        """Start a process for a job; None if another run has just taken its GPU."""
        part = f".part-{job.part.index}" if job.part else ""
        path = self.run_folder / "jobs" / f"{job.node.id}{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(job.to_json(), indent=1) + "\n")
        python = child.interpreter(job.node, self.settings, sys.executable)
        variables = child.environment(os.environ, placement, self.settings)
        if python != sys.executable:
            variables = child.with_engine(variables, self.run_folder / "import")
        held = self._locks.take(placement.gpus)
        if held is None:
            return None
        try:
            command = [python, *self.command, str(path)]
            started = self.begin(command, log_path, variables, self._memory, held)
        finally:
            for descriptor in held:
                os.close(descriptor)  # the process has its own
        started.gpus = placement.gpus
        self._started = [*(one for one in self._started if not one.is_closed), started]
        self._selector.register(started.pipe, selectors.EVENT_READ)
        started.selector = self._selector
        return started

    def wait(self, timeout_s: float) -> None:
        """Wait for a message or an end."""
        if not self._selector.get_map():
            time.sleep(timeout_s)  # select returns at once when it has nothing to wait for
            return
        self._selector.select(timeout_s)

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()


@dataclass(slots=True)
class Child:
    """A running process. `messages` and `end` never block."""

    log_path: Path
    process: Process
    pipe: int
    started_at: float
    gpu_memory: GpuMemory
    gpus: tuple[int, ...] = ()
    is_closed: bool = False
    last: dict[str, Any] | None = None  # of LAST_TYPES
    is_waiting: bool = False  # for another run that works on the same key
    selector: selectors.BaseSelector | None = None
    oom_kills: int | None = field(default_factory=machine.num_oom_kills)  # before it began
    _rest: bytes = field(default=b"")
    _cpu_seen: tuple[float, float] = (0.0, 0.0)  # monotonic time, CPU seconds until then

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that have arrived whole."""
        with suppress(BlockingIOError):
            while data := os.read(self.pipe, 65536):
                self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            message = json.loads(line)
            self.is_waiting = message["type"] == "waiting"
            if message["type"] in LAST_TYPES:
                self.last = message
            yield message

    def end(self) -> End | None:
        """Return how the process ended, or None while it runs."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return End(
            exit_code=self.process.returncode,
            wall_s=time.monotonic() - self.started_at,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_memory_gb=usage.ru_maxrss * _MAXRSS_BYTES / 1e9,
            out_of_memory=self._was_out_of_memory(),
        )

    def _was_out_of_memory(self) -> bool:
        """Tell whether the kernel ended it for want of memory; without a count it may have."""
        if self.process.returncode != -signal.SIGKILL:
            return False
        return self.oom_kills is None or machine.num_oom_kills() != self.oom_kills

    def usage(self) -> Usage | None:
        """Return what the process and its children take now, from /proc; None elsewhere."""
        found = machine.group_usage(self.process.pid)
        if found is None:
            return None
        now = time.monotonic()
        before, cpu_before = self._cpu_seen if self._cpu_seen[0] else (self.started_at, 0.0)
        self._cpu_seen = (now, found.cpu_s)
        share = max(0.0, found.cpu_s - cpu_before) / max(now - before, 1e-3)
        gpu_gb = [gb for pid, gb in self.gpu_memory.memory_gb().items() if pid in found.pids]
        return Usage(found.memory_gb, 100 * share, sum(gpu_gb) if gpu_gb else None)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Close the pipes and end what the process may have left behind."""
        self.is_closed = True
        self.signal(signal.SIGKILL)
        if self.selector is not None:
            self.selector.unregister(self.pipe)
        os.close(self.pipe)
        if self.process.stdin is not None:
            self.process.stdin.close()

    def log_tail(self, num_lines: int = 12) -> list[str]:
        """Return the last lines of the node's output."""
        return tail(self.log_path, num_lines)


def tail(path: Path, num_lines: int) -> list[str]:
    """Return the last lines of a log; none if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            return file.read().decode(errors="replace").splitlines()[-num_lines:]
    except OSError:
        return []


def start(
    command: Sequence[str],
    log_path: Path,
    environment: Mapping[str, str],
    gpu_memory: GpuMemory,
    held: Sequence[int] = (),
) -> Child:
    """Start a process that gets the number of its message pipe as its last argument.

    Its standard input is a lifeline: it closes when this process dies, and the child then ends.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, str(writer)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[writer, *held],
                env=dict(environment),
                start_new_session=True,
            )
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return Child(log_path, process, reader, time.monotonic(), gpu_memory)
