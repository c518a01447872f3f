"""A small disk of its own for a test: a tmpfs that is really full when it is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType

MANY_FILES = 100_000


class Disk:
    """A mounted tmpfs; use it as a context manager. Needs the right to mount."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        # A limit on files can be changed later only where there was one at the start.
        options = f"size={_whole_pages(size_bytes)},nr_inodes={MANY_FILES}"
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path))

    def resize(self, size_bytes: int) -> None:
        """Give the disk another size."""
        self._remount(f"size={_whole_pages(size_bytes)}")

    def limit_files(self, num_more: int) -> None:
        """Let only so many more files be made, whatever their size."""
        taken = os.statvfs(self.path)
        self._remount(f"nr_inodes={taken.f_files - taken.f_ffree + num_more}")

    def make_read_only(self) -> None:
        """Refuse new writes from now on, also while files are open for writing.

        A plain remount is refused as long as somebody writes, so a read-only view goes on top.
        """
        _run("mount", "--bind", str(self.path), str(self.path))
        _run("mount", "-o", "remount,bind,ro", str(self.path))

    def make_writable(self) -> None:
        """Take the read-only view away."""
        _run("umount", "--lazy", str(self.path))

    def used_bytes(self) -> int:
        """Return how much is on it."""
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.path))

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.path.is_mount():
            _run("umount", "--lazy", str(self.path))


@cache
def can_mount() -> bool:
    """Tell whether this process may mount."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode == 0:
            _run("umount", folder)
    return done.returncode == 0


def _whole_pages(size_bytes: int) -> int:
    return max(1, -(-size_bytes // 4096)) * 4096


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
