"""What this machine has, and what its user wants of it. Never in a recipe, never in a key."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Machine settings, resolved: flags, then `ADAPT_*`, then the user file, then defaults."""

    store: Path
    executor: str = "local"
    threads: int = 1  # cores this run may use; a node that wants many gets all but one
    device: str = "cpu"  # cpu or cuda
    num_gpus: int = 0
    is_offline: bool = False
    pythons: Mapping[str, str] = field(default_factory=dict)  # backend -> interpreter


def num_cores() -> int:
    """Return how many cores this process may use, a container's quota included."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed or 1, _quota_cores() or allowed or 1))


def num_gpus(visible: str | None) -> int:
    """Return how many NVIDIA GPUs there are, without loading a driver library.

    `visible` is the value of CUDA_VISIBLE_DEVICES, or None when it is not set.
    """
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    listed = Path("/proc/driver/nvidia/gpus")
    if listed.is_dir():
        return sum(1 for _ in listed.iterdir())
    return _count_by_tool() if shutil.which("nvidia-smi") else 0


def _count_by_tool() -> int:
    import subprocess

    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  # found on PATH a moment ago
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def _quota_cores() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None
