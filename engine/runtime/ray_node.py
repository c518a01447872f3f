"""A node's process on a machine of a Ray cluster, and what its driver hears of it.

This is the half that runs on the cluster: an actor with one process below it, the same one that
runs on one machine. The process ends when its actor does (its standard input is a pipe from it), so
a run that is killed leaves nothing behind. Ray itself is not imported here.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import engine
from engine.runtime import child, local
from engine.runtime.child import End, Usage
from engine.runtime.gpus import GpuLocks
from engine.runtime.machine import Settings
from engine.runtime.scheduler import Placement
from engine.runtime.worker import Job, job_from_json

MAX_LOG_BYTES = 256 * 1024  # of what was printed since the last time
PAUSE_S = 0.4  # between two answers while nothing has ended
_ROOT = Path(engine.__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Order:
    """What a machine of the cluster is asked to start. No file of the driver is needed for it."""

    version: str  # of the driver's engine
    job: Mapping[str, Any]
    command: Sequence[str]
    num_gpus: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class News:
    """What has happened since the driver last asked."""

    pid: int
    host: str
    messages: Sequence[Mapping[str, Any]] = ()
    log: bytes = b""
    usage: Usage | None = None
    end: End | None = None


@dataclass(slots=True)
class NodeProcess:
    """The actor. `news` and `signal` may be called side by side."""

    order: Order
    _child: local.Child | None = None
    _log_at: int = 0
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        """Start nothing yet: `news` does, and it can say what went wrong."""
        self._folder = Path(tempfile.mkdtemp(prefix="adapt-ray-"))

    def _try_start(self) -> local.Child | None:
        """Start the process; None while a run that is not Ray's holds one of its GPUs."""
        names = [child.gpu_name(os.environ, gpu) for gpu in range(self.order.num_gpus)]
        held = GpuLocks(names).take(range(self.order.num_gpus))
        if held is None:
            return None
        try:
            return self._start(job_from_json(on_this_machine(self.order.job)), held)
        finally:
            for descriptor in held:
                os.close(descriptor)  # the process has its own

    def _start(self, job: Job, held: Sequence[int]) -> local.Child:
        path = self._folder / "job.json"
        path.write_text(json.dumps(job.to_json()), encoding="utf-8")
        # Ray has named this actor's GPUs in CUDA_VISIBLE_DEVICES; the first n of those it is.
        gpus = tuple(range(self.order.num_gpus))
        placement = Placement(job.machine.num_threads, gpus)
        variables = child.environment(os.environ, placement, self.order.settings)
        python = child.interpreter(job.node, self.order.settings, sys.executable)
        if python == sys.executable:
            known = filter(None, (str(_ROOT), variables.get("PYTHONPATH")))
            variables["PYTHONPATH"] = os.pathsep.join(known)
        else:
            variables = child.with_engine(variables, self._folder / "import")
        command = [python, *self.order.command, str(path)]
        log_path = self._folder / "log"
        return local.start(command, log_path, variables, local.GpuMemory(len(gpus)), held)

    def news(self, wait_s: float) -> News:
        """Return what is new: at once after the end, else after a pause or when nothing comes."""
        host = os.uname().nodename
        if self.order.version != engine.__version__:
            return News(0, host, (self._wrong_version(host),), end=End(1, 0.0, 0.0, 0.0))
        self._child = self._child or self._try_start()
        if self._child is None:
            time.sleep(wait_s)
            return News(0, host, ({"type": "waiting"},))
        process = self._child
        began = time.monotonic()
        messages: list[dict[str, Any]] = []
        while True:
            end = process.end()  # before the messages, so that none of them is missed
            messages += process.messages()
            passed_s = time.monotonic() - began
            if end is not None or passed_s > (PAUSE_S if messages else wait_s):
                break
            select.select([process.pipe], [], [], 0.1)
            time.sleep(0.02)  # a pipe whose other end is closed is always ready
        usage = process.usage() if end is None else None
        news = News(process.pid, host, messages, self._new_log(), usage, end)
        if end is not None:
            process.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        return news

    def signal(self, number: int) -> None:
        """Send a signal to the process and all it started."""
        if self._child is not None:
            self._child.signal(signal.Signals(number))

    def _new_log(self) -> bytes:
        with (self._folder / "log").open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(self._log_at, size - MAX_LOG_BYTES))
            self._log_at = size
            return file.read(MAX_LOG_BYTES)

    def _wrong_version(self, host: str) -> dict[str, Any]:
        return {
            "type": "failed",
            "message": f"`{host}` has adapt {engine.__version__}, "
            f"this run is of {self.order.version}",
            "hint": "install the same version on every machine of the Ray cluster",
            "transient": None,
        }


def on_this_machine(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a job of a store in the cloud a folder of this machine's own user before it."""
    if not job.get("remote"):
        return job
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {**job, "store": str(cache / "adapt" / "stores" / Path(job["store"]).name)}
