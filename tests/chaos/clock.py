"""A wall clock that jumps, for the processes of a test alone (libfaketime).

Only what programs read as the time of day moves: the monotonic clock and the times that the file
system gives to files stay true, as with a file server that has a clock of its own.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

_DEBIAN = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_IN_PACKAGE = "vendor/libfaketime/src/libfaketime.so.1"


def library() -> Path | None:
    """Return libfaketime, from ADAPT_LIBFAKETIME, the Python package or the Debian package."""
    named = os.environ.get("ADAPT_LIBFAKETIME")
    package = find_spec("libfaketime")
    in_package = [Path(folder) / _IN_PACKAGE for folder in _folders(package)]
    installed = Path("/").glob(_DEBIAN.lstrip("/"))
    found = [Path(named)] if named else [*in_package, *installed]
    return next((path for path in found if path.is_file()), None)


def _folders(package: object) -> list[str]:
    return list(getattr(package, "submodule_search_locations", None) or [])


class Clock:
    """The time of day of the processes that are started with `environment`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shift(0)

    def shift(self, seconds: int) -> None:
        """Let the clock be wrong by so much from now on, also for what is running."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}\n", encoding="utf-8")
        temporary.replace(self.path)

    def tidy(self, pid: int) -> None:
        """Remove what libfaketime leaves in shared memory when a process is killed under it."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """Return what puts a process under this clock."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
