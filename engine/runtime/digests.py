"""Digests of source files, remembered by what `stat` says, so that a warm plan reads no file twice.

An entry is trusted only if the file had been still for a while when it was hashed (git's
"racy clean" rule): a file written twice within one tick of the clock may look unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from engine.runtime.store import write_whole

RACY_S = 2.0


class DigestCache:
    """Hashes files; `save` writes what was learnt. Without `save` nothing is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Any] | None = None
        self._is_changed = False
        self.used: set[str] = set()  # the files asked for, whether hashed now or remembered

    def digest_file(self, path: Path) -> str:
        """Return the SHA-256 of a file, hex."""
        entries = self._load()
        name = os.path.abspath(path)  # noqa: PTH100  # resolving links costs more than the digest
        seen = _fingerprint(path)
        self.used.add(name)
        known = entries.get(name)
        if known is not None and known[:-1] == seen:
            return str(known[-1])
        now = time.time()
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if _fingerprint(path) == seen and _is_still(path, now):
            entries[name] = [*seen, sha256]
            self._is_changed = True
        return sha256

    def save(self) -> None:
        """Write the entries, if any is new. Another process's entries may be lost: a cache."""
        if self._is_changed:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self._load()) + "\n")
            self._is_changed = False

    def _load(self) -> dict[str, Any]:
        if self._entries is None:
            try:
                found = json.loads(self.path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found = {}
            self._entries = found if isinstance(found, dict) else {}
        return self._entries


def _fingerprint(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _is_still(path: Path, now: float) -> bool:
    found = path.stat()
    return max(found.st_mtime, found.st_ctime) < now - RACY_S
