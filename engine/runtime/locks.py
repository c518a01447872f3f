"""One writer per key, across processes, containers and machines that share a store.

A lock is a small file that names its holder. On one machine a dead holder is recognised at once, by
process id, start time and boot; a holder that cannot be seen from here (another container, another
machine) counts as dead when it has not touched its lock for a minute.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BEAT_S = 10.0
FOREIGN_STALE_S = 60.0


class KeyLock:
    """The lock of one key. Not for use by several threads."""

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{key}.lock"
        self._guard = folder / "guard"

    def try_acquire(self) -> bool:
        """Take the lock unless a living holder has it."""
        with _exclusive(self._guard):
            if self._is_held():
                return False
            temporary = self._path.with_suffix(".new")  # the guard makes it ours
            temporary.write_text(json.dumps(identity()), encoding="utf-8")
            temporary.replace(self._path)
            return True

    def touch(self) -> None:
        """Show that the holder is alive; call it every `BEAT_S`."""
        with suppress(FileNotFoundError):
            os.utime(self._path)

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        with _exclusive(self._guard):
            if _read(self._path) == identity():
                self._path.unlink(missing_ok=True)

    def _is_held(self) -> bool:
        holder = _read(self._path)
        if holder is None:
            return False
        if is_visible(holder):
            return is_alive(holder)
        with suppress(FileNotFoundError):
            return time.time() - self._path.stat().st_mtime < FOREIGN_STALE_S
        return False


def identity() -> dict[str, Any]:
    """Return what tells this process from every other one, also after a reboot."""
    pid = os.getpid()
    return {"pid": pid, "start": _start_time(pid), **_machine()}


def is_visible(holder: dict[str, Any]) -> bool:
    """Tell whether a holder's process, if it lives, can be seen from here."""
    here = _machine()
    if holder.get("host") == here["host"] and holder.get("boot") != here["boot"]:
        return True  # this machine, before a reboot
    return all(holder.get(name) == value for name, value in here.items())


def is_alive(holder: dict[str, Any]) -> bool:
    """Tell whether the very process that wrote this identity still runs."""
    if any(holder.get(name) != value for name, value in _machine().items()):
        return False
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return bool(holder.get("start") == _start_time(pid))


def _machine() -> dict[str, str]:
    return {
        "host": os.uname().nodename,
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),
    }


def _start_time(pid: int) -> str:
    # The command in parentheses may itself hold spaces and parentheses.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if fields and fields[0] == "Z":
        return "zombie"  # dead, only not yet waited for
    return fields[19] if len(fields) > 19 else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
