"""Damage to one file, as a bad disk or a wrong program leaves it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

# What is in the folder of a round -> where.
PLACES = {
    "artifact": ("store/artifacts/*/*/**/*",),
    "manifest": ("store/artifacts/*/*/manifest.json",),
    "realised": ("store/realised/*.json",),
    "scratch": ("store/scratch/**/*",),
    "staging": ("store/tmp/**/*",),
    "digests": ("store/cache/**/*",),
    "events": ("store/runs/*/events.jsonl",),
    "run": ("store/runs/*/*.json", "store/runs/*/jobs/**/*.json"),
    "lock": ("store/locks/*",),
    "user cache": ("cache/**/*",),
}
BLOCK_BYTES = 512


def files(folder: Path, place: str) -> list[Path]:
    """Return the files of a place that hold anything, in order."""
    found = {path for pattern in PLACES[place] for path in folder.glob(pattern)}
    chosen = [path for path in found if path.is_file() and path.stat().st_size]
    if place == "artifact":
        chosen = [path for path in chosen if path.name != "manifest.json"]
    return sorted(chosen)


def do(path: Path, how: str, rng: Random, *, is_silent: bool = True) -> str:
    """Damage a file in one of HOW; return what was done, for people.

    Silent damage leaves the time of change as it was: a disk that fails keeps no time of it.
    """
    before = path.stat()
    data = path.read_bytes()
    damaged, text = HOW[how](data, rng)
    path.chmod(before.st_mode | 0o200)
    path.write_bytes(damaged)
    path.chmod(before.st_mode)
    if is_silent:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"{text}, silently" if is_silent else text


def _flip(data: bytes, rng: Random) -> tuple[bytes, str]:
    changed = bytearray(data)
    bits = rng.sample(range(8 * len(data)), rng.choice([1, 1, 3]))
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed), f"bit {_words(bits)} flipped"


def _cut(data: bytes, rng: Random) -> tuple[bytes, str]:
    size = rng.choice([0, rng.randrange(len(data)), len(data) - 1])
    return data[:size], f"cut to {size} of {len(data)} bytes"


def _blank(data: bytes, rng: Random) -> tuple[bytes, str]:
    start = rng.randrange(0, len(data), BLOCK_BYTES)
    end = min(len(data), start + BLOCK_BYTES)
    return data[:start] + bytes(end - start) + data[end:], f"bytes {start}-{end} zeroed"


def _words(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


HOW = {"flip": _flip, "cut": _cut, "blank": _blank}
