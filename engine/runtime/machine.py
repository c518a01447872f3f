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

    store: Path  # a folder; of a shared store, the one before it
    remote: str = ""  # URL of a shared store
    executor: str = "local"
    ray_address: str = "auto"  # of the cluster, where the executor is Ray
    threads: int = 1  # cores this run may use, 0: all of a cluster; see scheduler.threads_of
    retries: int = 3  # how often a node is tried again after what may pass
    retry_pause_s: float = 1.0  # before the first retry; four times as long before each next
    device: str = "cpu"  # cpu or cuda
    num_gpus: int = 0
    is_offline: bool = False
    pythons: Mapping[str, str] = field(default_factory=dict)  # backend -> interpreter
    trackers: tuple[str, ...] = ()  # told of the run; never needed for it


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
    return _count_by_tool()


def free_memory_gb() -> float | None:
    """Return the memory that is free for this process, a container's limit included."""
    found = [
        free for free in (_meminfo("MemAvailable"), _free_in_cgroup_bytes()) if free is not None
    ]
    return min(found) / 1e9 if found else None


def memory_gb() -> float | None:
    """Return the memory of this machine, used or not, a container's limit included."""
    found = [size for size in (_meminfo("MemTotal"), _limit_of_cgroup()) if size is not None]
    return min(found) / 1e9 if found else None


def free_disk_gb(path: Path) -> float | None:
    """Return the room for a path that need not be there yet; None where nothing tells."""
    for folder in (path, *path.resolve().parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free / 1e9
    return None


def num_oom_kills(path: Path = Path("/proc/vmstat")) -> int | None:
    """Return how many processes the kernel has ended for want of memory; None where it is silent.

    It counts all of them, those of other containers too.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    found = [line.removeprefix("oom_kill ") for line in lines if line.startswith("oom_kill ")]
    return int(found[0]) if found else None


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What the processes of a group take: memory now, CPU since they began."""

    memory_gb: float
    cpu_s: float
    pids: tuple[int, ...]


def group_usage(group: int) -> GroupUsage | None:
    """Return what a process group takes, from /proc; None where there is no such group.

    Memory shared within the group is counted once per process.
    """
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    pages, ticks, pids = 0, 0, []
    for name in os.listdir("/proc") if Path("/proc/self/stat").exists() else ():  # noqa: PTH208
        if not name.isdigit():
            continue
        try:
            text = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        fields = text.rpartition(")")[2].split()
        if int(fields[2]) == group and fields[0] != "Z":
            pages += int(fields[21])
            ticks += sum(int(field) for field in fields[11:15])
            pids.append(int(name))
    return GroupUsage(pages * page / 1e9, ticks / tick, tuple(pids)) if pids else None


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None


def _limit_of_cgroup() -> int | None:
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _free_in_cgroup_bytes() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        return limit - int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def gpu_sizes_gb(visible: str | None) -> tuple[float, ...]:
    """Return the memory of each GPU this process may use, in order; empty where nothing tells.

    `visible` is the value of CUDA_VISIBLE_DEVICES; names other than numbers are not looked up.
    """
    rows = _nvidia_smi("--query-gpu=index,memory.total", "--format=csv,noheader,nounits")
    sizes = {index: float(mib) * 2**20 / 1e9 for index, mib in _pairs(rows)}
    names = list(sizes) if visible is None else [n.strip() for n in visible.split(",") if n.strip()]
    if not all(name in sizes for name in names):
        return ()
    return tuple(sizes[name] for name in names)


def gpu_memory_gb_by_process() -> dict[int, float]:
    """Return the GPU memory that each process takes now; empty where nothing tells."""
    rows = _nvidia_smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    found: dict[int, float] = {}
    for pid, mib in _pairs(rows):
        found[int(pid)] = found.get(int(pid), 0.0) + float(mib) * 2**20 / 1e9
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return the lines of two cells whose second is a number; "[N/A]" is not."""
    cells = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [(row[0], row[1]) for row in cells if len(row) == 2 and row[1].isdigit()]


def _count_by_tool() -> int:
    return sum(line.startswith("GPU ") for line in _nvidia_smi("-L").splitlines())


def _nvidia_smi(*arguments: str) -> str:
    """Return what the driver's own tool prints; nothing where it is missing, stuck or failing."""
    import subprocess

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        done = subprocess.run(
            [tool, *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _quota_cores() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None
