"""One node's process as its parent sees it: environment, messages, end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.plan.stage import Node
from engine.runtime.machine import Settings
from engine.runtime.scheduler import Placement

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_ENGINE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended."""

    exit_code: int  # negative: the signal that ended it
    wall_s: float
    cpu_s: float
    peak_memory_gb: float


@dataclass(slots=True)
class Child:
    """A running process. `messages` and `end` never block."""

    node: Node
    placement: Placement
    log_path: Path
    process: subprocess.Popen[bytes]
    pipe: int
    started_at: float
    last: dict[str, Any] | None = None  # finished, cached or failed
    is_waiting: bool = False  # for another run that works on the same key
    _rest: bytes = field(default=b"")

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that have arrived whole."""
        with suppress(BlockingIOError):
            while data := os.read(self.pipe, 65536):
                self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            message = json.loads(line)
            self.is_waiting = message["type"] == "waiting"
            if message["type"] in ("finished", "cached", "failed"):
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
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Close the pipes and end what the process may have left behind."""
        self.signal(signal.SIGKILL)
        os.close(self.pipe)
        if self.process.stdin is not None:
            self.process.stdin.close()

    def log_tail(self, num_lines: int = 12) -> list[str]:
        """Return the last lines of the node's output."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, self.log_path.stat().st_size - 16384))
                return file.read().decode(errors="replace").splitlines()[-num_lines:]
        except OSError:
            return []


def start(
    node: Node,
    placement: Placement,
    command: Sequence[str],
    log_path: Path,
    environment: Mapping[str, str],
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
                pass_fds=[writer],
                env=dict(environment),
                start_new_session=True,
            )
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return Child(node, placement, log_path, process, reader, time.monotonic())


def interpreter(node: Node, settings: Settings, default: str) -> str:
    """Return the interpreter of a node: its backend's, if the machine settings name one."""
    named = (settings.pythons[name] for name in _backends(node.params) if name in settings.pythons)
    return next(named, default)


def environment(
    inherited: Mapping[str, str], placement: Placement, settings: Settings
) -> dict[str, str]:
    """Return the environment of a node's process."""
    threads = str(placement.threads)
    gpu = "" if placement.gpu is None else _gpu_name(inherited, placement.gpu)
    changed = {
        "CUDA_VISIBLE_DEVICES": gpu,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # idle threads must not burn the cores of other nodes
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
    }
    if settings.is_offline:
        offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
        changed |= dict.fromkeys(offline, "1")
    return {**inherited, **changed}


def with_engine(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Let another interpreter import this engine, and none of this environment's packages.

    The way is a folder that holds a link to the engine and nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / _ENGINE.name).symlink_to(_ENGINE, target_is_directory=True)
    path = (str(folder.resolve()), variables.get("PYTHONPATH", ""))
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _gpu_name(inherited: Mapping[str, str], index: int) -> str:
    visible = [name for name in inherited.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[index] if index < len(visible) else str(index)


def _backends(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        backend = value.get("backend")
        if isinstance(backend, Mapping) and "use" in backend:
            yield str(backend["use"])
        for item in value.values():
            yield from _backends(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _backends(item)
