"""Files that cannot be half or damaged unnoticed: the name holds the SHA-256 of the content.

A file is written in a folder of its own, flushed to the disk, and then named after its digest in
one rename; a power cut or a kill leaves it whole or not at all. A reader hashes before it believes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

_WRITING = "writing"  # a folder, because libraries put temporary files of their own beside a file


def begin(folder: Path, stem: str) -> Path:
    """Return the path to write a file at; what a kill in an earlier write has left is removed."""
    writing = folder / _WRITING
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    return writing / stem


def seal(written: Path) -> Path:
    """Flush a file written where `begin` says and give it its name; return its path."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    final = written.parents[1] / f"{written.name}.{_digest(written)}"
    written.replace(final)
    _flush_folder(final.parent)
    return final


def found(folder: Path, stem: str) -> list[Path]:
    """Return the sealed files whose name starts with a stem, in order; they may be damaged."""
    return sorted(folder.glob(f"{stem}*"))


def is_whole(path: Path) -> bool:
    """Tell whether a sealed file is there and holds what was written."""
    try:
        return path.name.rpartition(".")[2] == _digest(path)
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make a rename last; folders cannot be flushed everywhere."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
