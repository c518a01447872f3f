"""One owner per GPU of this machine, also across runs: a lock that dies with its holder.

The lock is the kernel's (flock), on a file that all users of the machine share. The process that
works on the GPU holds it by an inherited descriptor, so that no crash can leave it behind.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path


class GpuLocks:
    """The locks of the GPUs a run may use, by their place in it."""

    def __init__(self, names: Sequence[str], folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / "adapt-gpus"
        self._names = names

    def busy(self, ours: Iterable[int]) -> frozenset[int]:
        """Return the GPUs that other runs hold; `ours` are known to be this run's."""
        others = set(range(len(self._names))) - set(ours)
        return frozenset(gpu for gpu in others if not self._is_free(gpu))

    def take(self, gpus: Iterable[int]) -> list[int] | None:
        """Lock GPUs; return descriptors to hand to the process, or None if one is held."""
        taken: list[int] = []
        for gpu in sorted(gpus):
            descriptor = self._try(gpu)
            if descriptor is None:
                for held in taken:
                    os.close(held)
                return None
            taken.append(descriptor)
        return taken

    def _is_free(self, gpu: int) -> bool:
        descriptor = self._try(gpu)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def _try(self, gpu: int) -> int | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):
            self._folder.chmod(0o777)
        path = self._folder / f"{self._names[gpu]}.lock"
        if not path.exists():
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
                path.chmod(0o666)
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
