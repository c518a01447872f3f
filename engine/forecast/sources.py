"""Counts the rows of sources that lie on this machine, as far as that is cheap.

Lines of small files are counted; of large ones the first part is, and the rest is scaled by size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.forecast.flow import CountSource
from engine.plan.estimate import Figure

READ_BYTES = 4_000_000
_MOST_FILES = 100_000
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_LINES = (".jsonl", ".ndjson", ".csv", ".tsv")


def counter(folder: Path) -> CountSource:
    """Return what counts sources whose paths start at `folder`."""

    def count(source: Mapping[str, Any]) -> Figure | None:
        name = source.get("path")
        if not isinstance(name, str):
            return None
        path = folder / Path(name).expanduser()
        try:
            return _count(source["use"], path)
        except OSError:
            return None

    return count


def _count(use: str, path: Path) -> Figure | None:
    if use == "image_folder":
        return _pictures(path)
    files = [path] if path.is_file() else sorted(path.glob("*"))[:_MOST_FILES]
    lines = [file for file in files if file.suffix.lower() in _LINES]
    if not lines:
        return None
    counted = [_lines(file) for file in lines]
    total = sum(number for number, _ in counted)
    if all(is_whole for _, is_whole in counted):
        return Figure(total, f"counted: lines of {_named(lines)}")
    return Figure(total, f"assumed from the first {READ_BYTES / 1e6:g} MB of {_named(lines)}")


def _pictures(path: Path) -> Figure:
    num = 0
    for found in path.rglob("*"):
        num += found.suffix.lower() in _PICTURES
        if num >= _MOST_FILES:
            return Figure(num, f"assumed: {num:,} pictures, and there are more")
    return Figure(num, "counted: pictures in the folder")


def _lines(file: Path) -> tuple[int, bool]:
    """Return the rows of a text table, and whether all of it was read."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(READ_BYTES)
    found = head.count(b"\n") + (0 < len(head) == size and not head.endswith(b"\n"))
    has_header = file.suffix.lower() in (".csv", ".tsv")
    if len(head) == size:
        return max(found - has_header, 0), True
    return round(found * size / len(head)), False


def _named(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{len(files)} files"
