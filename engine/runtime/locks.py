"""One writer per key, across processes, containers and machines that share a store.

A lock is a small file that names its holder. On one machine a dead holder is recognised at once, by
process id, start time and boot; a holder that cannot be seen from here (another container, another
machine, this one before a reboot) counts as dead when it has not touched its lock while somebody
watched for a minute. A lock whose text was damaged names nobody, and holds nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BEAT_S = 10.0
FOREIGN_STALE_S = 60.0


class KeyLock:
    """The lock of one key. Not for use by several threads."""

    def __init__(self, folder: Path, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock  # steady: never set back or forward
        self._path = folder / f"{key}.lock"
        self._guard = folder / "guard"
        self._seen: tuple[tuple[int, int], float] | None = None  # a foreign lock, and since when

    def try_acquire(self) -> bool:
        """Take the lock unless a living holder has it."""
        with _exclusive(self._guard):
            if self.is_held():
                return False
            temporary = self._path.with_suffix(".new")  # the guard makes it ours
            temporary.write_text(sealed(identity()), encoding="utf-8")
            temporary.replace(self._path)
            return True

    def touch(self) -> None:
        """Show that the holder is alive; call it every `BEAT_S`."""
        with suppress(FileNotFoundError):
            os.utime(self._path)

    def is_ours(self) -> bool:
        """Tell whether nobody took the lock over, as happens to a process that stood still."""
        return _read(self._path) == identity()

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        with _exclusive(self._guard):
            if _read(self._path) == identity():
                self._path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Tell whether a living holder has the lock; the first look at one far away says yes."""
        holder = _read(self._path)
        if holder is None:
            return False
        if _is_here(holder):
            return is_alive(holder)
        return self._is_touched()

    def _is_touched(self) -> bool:
        """Tell whether a holder that cannot be seen still touches its lock.

        Its time stamp is only compared with itself, over a span of this process's own steady clock:
        clocks of two machines differ, and may jump.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        stamp = (found.st_ino, found.st_mtime_ns)
        if self._seen is None or self._seen[0] != stamp:
            self._seen = (stamp, self._clock())
        return self._clock() - self._seen[1] < FOREIGN_STALE_S


def identity() -> dict[str, Any]:
    """Return what tells this process from every other one, also after a reboot."""
    pid = os.getpid()
    return {"pid": pid, "start": _start_time(pid), **_machine()}


def is_visible(holder: dict[str, Any]) -> bool:
    """Tell whether a holder's process, if it lives, can be seen from here; for display only.

    A host of the same name that was booted another time may as well be another machine.
    """
    here = _machine()
    if holder.get("host") == here["host"] and holder.get("boot") != here["boot"]:
        return True  # this machine, before a reboot
    return _is_here(holder)


def _is_here(holder: dict[str, Any]) -> bool:
    return all(holder.get(name) == value for name, value in _machine().items())


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


def sealed(holder: dict[str, Any]) -> str:
    """Return the text of a lock: its holder, and a checksum of that line."""
    text = json.dumps(holder)
    return f"{text}\n{zlib.crc32(text.encode()):08x}\n"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        text, _, check = path.read_text(encoding="utf-8").partition("\n")
        found = json.loads(text)
    except (FileNotFoundError, ValueError):
        return None
    is_whole = check.strip() == f"{zlib.crc32(text.encode()):08x}"
    return found if is_whole and isinstance(found, dict) else None


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
