"""SHA-256 of files, several at a time: the digest itself runs outside of Python's lock."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

MAX_THREADS = 8
WORTH = 32 << 20  # bytes; fewer are hashed before a pool of threads is imported
_BUFFER_BYTES = 1 << 20
_PIECE = 64  # files: handing one over costs as much as the digest of a small one

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Buffer(threading.local):
    """A buffer of each thread: a new one for each file would take longer than a small digest."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_BUFFER_BYTES))


_buffer = _Buffer()


def digest_open(descriptor: int) -> bytes:
    """Return the SHA-256 of what is left of an open file."""
    memory, sha256 = _buffer.memory, hashlib.sha256()
    while num := os.readv(descriptor, [memory]):
        sha256.update(memory[:num])
    return sha256.digest()


def digest_file(path: str | Path) -> bytes:
    """Return the SHA-256 of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return digest_open(descriptor)
    finally:
        os.close(descriptor)


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], size_bytes: int
) -> list[Result]:
    """Return what `work` makes of each item, in order; in threads when there is enough to do."""
    num_threads = min(_num_cores(), MAX_THREADS, len(items)) if size_bytes >= WORTH else 1
    if num_threads < 2:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    step = max(1, min(_PIECE, len(items) // (4 * num_threads)))
    pieces = [items[start : start + step] for start in range(0, len(items), step)]
    with ThreadPoolExecutor(num_threads) as pool:
        done = pool.map(lambda piece: [work(item) for item in piece], pieces)
        return [result for results in done for result in results]


def _num_cores() -> int:
    from engine.runtime import machine

    return machine.num_cores()
