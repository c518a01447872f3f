"""Finished shards of a node, kept in a folder until the node is done: found whole, or not at all.

A shard is a file of JSON lines under a first line that holds their digest. A file that is torn,
cut or changed in any bit reads as missing, so the shard is simply worked on again. Nothing is
synced to the disk: after a power failure the digest tells what arrived. Files lie a thousand to a
folder, since some file systems are slow with a million names in one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

FOLDER_SHARDS = 1000

Item = TypeVar("Item")


def cut(items: Iterable[Item], num_items: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of at most `num_items`; `itertools.batched` came with Python 3.12."""
    stream = iter(items)
    while batch := list(islice(stream, num_items)):
        yield batch


def shard_path(folder: Path, name: str, number: int) -> Path:
    """Return where a shard lies."""
    return folder / name / f"{number // FOLDER_SHARDS:04d}" / f"{number:07d}.jsonl"


def kept(folder: Path, name: str, number: int, work: Callable[[], Iterable[Any]]) -> list[Any]:
    """Return the rows of a shard: those that were kept, else those that `work` makes, kept now."""
    path = shard_path(folder, name, number)
    rows = read(path)
    return write(path, work()) if rows is None else rows


def is_whole(path: Path) -> bool:
    """Tell whether there is a whole shard."""
    return _lines(path) is not None


def read(path: Path) -> list[Any] | None:
    """Return the rows of a shard, or None where there is no whole one."""
    lines = _lines(path)
    return None if lines is None else _parsed(lines)


def _lines(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, _, lines = content.partition(b"\n")
    return lines if digest == _digest(lines) else None


def write(path: Path, rows: Iterable[Any]) -> list[Any]:
    """Write a shard whole and return its rows as they will be read back.

    When two processes write the same shard, the last of them stays.
    """
    import secrets  # imports a tenth of what a plan does

    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(_digest(lines) + b"\n" + lines)
        temporary.replace(path)
    except OSError:  # a full disk needs the room back
        temporary.unlink(missing_ok=True)
        raise
    return _parsed(lines)


def _parsed(lines: bytes) -> list[Any]:
    return [json.loads(line) for line in lines.splitlines()]


def _digest(lines: bytes) -> bytes:
    return hashlib.blake2b(lines, digest_size=16).hexdigest().encode()
