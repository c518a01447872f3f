"""Digests of source files, remembered by what `stat` says, so that a warm plan reads no file twice.

One small file per folder of the sources: the names, what `stat` said of each and their digests,
under a checksum. A folder is looked up in one go, and one changed file is one file that is read. An
entry is trusted only

- if the file had been still for a while when it was hashed (git's "racy clean" rule): a file
  written twice within one tick of the clock may look unchanged;
- if it was written down before now: a clock that was set back may give a changed file the very
  time stamps that it had.

What another process writes down at the same time may be lost, and so may any of the files: a cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.runtime import hashing

RACY_S = 2.0
FORMAT = b"adapt digests 2\n"
_FACTS = struct.Struct("=qqqQQ")  # of each file: what `stat` says
_NUM_FACTS, _NUM_BYTES = _FACTS.size, 32  # bytes of the facts, and of a SHA-256


@dataclass(slots=True)
class _Folder:
    """What is known of the files of one folder, in three columns."""

    name: str
    written_at: float = 0.0
    rows: dict[str, int] = field(default_factory=dict)  # file -> row
    facts: bytearray = field(default_factory=bytearray)
    digests: bytearray = field(default_factory=bytearray)
    is_changed: bool = False

    def known(self, file: str, seen: bytes) -> str | None:
        """Return the digest of a file, if `stat` says the same of it as it did."""
        row = self.rows.get(file)
        if row is None or self.facts[row * _NUM_FACTS : (row + 1) * _NUM_FACTS] != seen:
            return None
        return self.digests[row * _NUM_BYTES : (row + 1) * _NUM_BYTES].hex()

    def learn(self, file: str, seen: bytes, digest: bytes) -> None:
        """Remember the digest of a file."""
        row = self.rows.setdefault(file, len(self.rows))
        self.facts[row * _NUM_FACTS : (row + 1) * _NUM_FACTS] = seen
        self.digests[row * _NUM_BYTES : (row + 1) * _NUM_BYTES] = digest
        self.is_changed = True


class DigestCache:
    """Hashes files; `save` writes what was learnt. Without `save` nothing is written."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path  # a folder
        self.used: set[str] = set()  # the files asked for, whether hashed now or remembered
        self._clock = clock
        self._folders: dict[str, _Folder] = {}

    def __call__(self, path: Path) -> str:
        """Return the SHA-256 of a file, hex."""
        return self.digest_file(path)

    def digest_file(self, path: Path) -> str:
        """Return the SHA-256 of a file, hex."""
        return self.many([str(path)])[0]

    def many(self, paths: Iterable[str]) -> list[str]:
        """Return the SHA-256 of each file, hex; those that have to be read are, side by side."""
        found: list[str | None] = []
        unknown: list[tuple[int, str, bytes]] = []
        folder = None
        for number, path in enumerate(paths):
            name = _absolute(path)
            seen = _facts(os.stat(name))  # noqa: PTH116  # a `Path` for each takes as long again
            self.used.add(name)
            parent, _, file = name.rpartition("/")
            if folder is None or folder.name != parent:
                folder = self._folder(parent)
            digest = folder.known(file, seen)
            found.append(digest)
            if digest is None:
                unknown.append((number, name, seen))
        for number, digest in self._read(unknown):
            found[number] = digest
        return [digest for digest in found if digest is not None]

    def save(self) -> None:
        """Write what is new, a file for each folder. Another process's news may be lost."""
        for folder in self._folders.values():
            if folder.is_changed:
                self.path.mkdir(parents=True, exist_ok=True)
                _write(self._file(folder.name), folder, self._clock())
                folder.is_changed = False

    def _read(self, unknown: Sequence[tuple[int, str, bytes]]) -> Iterator[tuple[int, str]]:
        """Hash files; remember those that were not, and cannot have been, changed meanwhile."""
        now = self._clock()
        names = [name for _, name, _ in unknown]
        digests = hashing.side_by_side(_digest_and_stat, names, _size(unknown))
        for (number, name, seen), (digest, found) in zip(unknown, digests, strict=True):
            if _facts(found) == seen and max(found.st_mtime, found.st_ctime) < now - RACY_S:
                parent, _, file = name.rpartition("/")
                self._folder(parent).learn(file, seen, digest)
            yield number, digest.hex()

    def _folder(self, name: str) -> _Folder:
        found = self._folders.get(name)
        if found is None:
            found = _load(self._file(name), name)
            if found.written_at > self._clock():
                found = _Folder(name)
            self._folders[name] = found
        return found

    def _file(self, folder: str) -> Path:
        return self.path / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]


def _absolute(path: str) -> str:
    """Return the whole path; links stay, since to resolve them costs more than the digest."""
    is_plain = path.startswith("/") and "/." not in path and "//" not in path
    return path if is_plain else os.path.abspath(path)  # noqa: PTH100


def _digest_and_stat(name: str) -> tuple[bytes, os.stat_result]:
    return hashing.digest_file(name), os.stat(name)  # noqa: PTH116


def _facts(found: os.stat_result) -> bytes:
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return _FACTS.pack(found.st_size, *times, found.st_ino, found.st_dev)


def _size(unknown: Iterable[tuple[int, str, bytes]]) -> int:
    return sum(_FACTS.unpack(seen)[0] for _, _, seen in unknown)


def _write(path: Path, folder: _Folder, now: float) -> None:
    """Write a folder so that others see it whole or not at all."""
    names = json.dumps([folder.name, now, list(folder.rows)]).encode() + b"\n"
    body = b"".join((names, folder.facts, folder.digests))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(FORMAT + hashlib.sha256(body).digest() + body)
    temporary.replace(path)


def _load(path: Path, name: str) -> _Folder:
    """Read a folder; one that is not there, damaged or of another folder is an empty one."""
    try:
        whole = path.read_bytes()
    except OSError:
        return _Folder(name)
    start = len(FORMAT) + _NUM_BYTES
    body = memoryview(whole)[start:]
    if whole[:start] != FORMAT + hashlib.sha256(body).digest():
        return _Folder(name)
    end = whole.index(b"\n", start) + 1
    folder, written_at, files = json.loads(whole[start:end])
    if folder != name:
        return _Folder(name)
    middle = end + len(files) * _NUM_FACTS
    rows = dict(zip(files, range(len(files)), strict=True))
    facts, digests = bytearray(whole[end:middle]), bytearray(whole[middle:])
    return _Folder(name, written_at, rows, facts, digests)
