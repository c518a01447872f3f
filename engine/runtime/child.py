"""One node's process as its parent sees it, wherever it runs; and its environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.plan.stage import Node
from engine.runtime.machine import Settings
from engine.runtime.scheduler import Capacity, Placement
from engine.runtime.worker import Job

_ENGINE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended."""

    exit_code: int  # negative: the signal that ended it
    wall_s: float
    cpu_s: float
    peak_memory_gb: float
    out_of_memory: bool = False  # the kernel ended it for that, as far as can be told


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and all it started take now."""

    memory_gb: float
    cpu_percent: float  # 100 is one core
    gpu_memory_gb: float | None = None

    @staticmethod
    def sum(found: Sequence[Usage]) -> Usage:
        """Return what several processes take together."""
        gpus = [usage.gpu_memory_gb for usage in found if usage.gpu_memory_gb is not None]
        return Usage(
            sum(usage.memory_gb for usage in found),
            sum(usage.cpu_percent for usage in found),
            sum(gpus) if gpus else None,
        )


class Worker(Protocol):
    """A process of a node, wherever it runs. Nothing here blocks."""

    @property
    def pid(self) -> int:
        """The number of the process on its machine."""

    @property
    def last(self) -> Mapping[str, Any] | None:
        """Its last message, one of finished, cached, part, damaged, failed; None before it."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for another run that works on the same key."""

    def messages(self) -> Iterator[Mapping[str, Any]]:
        """Yield the messages that have arrived whole."""

    def end(self) -> End | None:
        """Return how it ended, or None while it runs."""

    def usage(self) -> Usage | None:
        """Return what it takes now, or None where that is not known."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all it started."""

    def close(self) -> None:
        """Release what it held, and end what it left behind."""

    def log_tail(self) -> Sequence[str]:
        """Return the last lines of its output."""


class Launcher(Protocol):
    """Where processes run: on this machine, or on a cluster."""

    def capacity(self) -> Capacity:
        """Return what all processes share; it may change while a run goes."""

    def start(self, job: Job, placement: Placement, log_path: Path) -> Worker | None:
        """Start a process for a job, its output appended to the log; None if it must wait."""

    def wait(self, timeout_s: float) -> None:
        """Return when a process may have said something or ended, or when the time is over."""

    def close(self) -> None:
        """Give back what it holds."""


def interpreter(node: Node, settings: Settings, default: str) -> str:
    """Return the interpreter of a node: its backend's, if the machine settings name one."""
    named = (settings.pythons[name] for name in _backends(node.params) if name in settings.pythons)
    return next(named, default)


def environment(
    inherited: Mapping[str, str], placement: Placement, settings: Settings
) -> dict[str, str]:
    """Return the environment of a node's process."""
    threads = str(placement.threads)
    changed = {
        "CUDA_VISIBLE_DEVICES": ",".join(gpu_name(inherited, gpu) for gpu in placement.gpus),
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


def gpu_name(inherited: Mapping[str, str], index: int) -> str:
    """Return the name by which CUDA knows the n-th GPU that this process may use."""
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
