"""Reads the first rows of a table as they stand there, before anybody knows its columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from engine.sources import _files, csv_file, json_file, parquet, webdataset

SUFFIXES: dict[str, tuple[str, ...]] = {
    "csv_file": csv_file.SUFFIXES,
    "json_file": json_file.SUFFIXES,
    "parquet": parquet.SUFFIXES,
    "webdataset": webdataset.SUFFIXES,
}


class NotATableError(ValueError):
    """The file does not hold rows; the message says what was found."""


def kind_of(name: str) -> str | None:
    """Return the source that reads a file of this name, if one does."""
    return next((use for use, ends in SUFFIXES.items() if name.lower().endswith(ends)), None)


def raw_rows(use: str, path: Path, most: int) -> list[dict[str, Any]]:
    """Return the first rows of a table. Raise NotATableError for a file that holds none."""
    try:
        found = list(islice(_READERS[use](path), most))
    except (OSError, ValueError, UnicodeError, EOFError) as error:
        raise NotATableError(str(error) or type(error).__name__) from error
    except Exception as error:  # pyarrow and tarfile raise their own kinds for damaged files
        if type(error).__module__.partition(".")[0] in ("pyarrow", "tarfile", "_csv", "zlib"):
            raise NotATableError(str(error)) from error
        raise
    if not found:
        raise NotATableError("it holds no row")
    return found


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        for row in csv.DictReader(lines, delimiter=delimiter):
            yield {name: value for name, value in row.items() if isinstance(name, str)}


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() in json_file.LINES:
        with path.open(encoding="utf-8-sig") as lines:
            yield from _mappings(_parsed(line) for line in lines)
        return
    found = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(found, list):
        keys = ", ".join(f"`{key}`" for key in list(found)[:6]) if isinstance(found, dict) else ""
        raise NotATableError(
            "it is not a list of rows" + (f", but has the keys {keys}" if keys else "")
        )
    yield from _mappings(iter(found))


def _parsed(line: str) -> Any:
    """Return a line's value; None for one that the source would report as not JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _mappings(values: Iterator[Any]) -> Iterator[dict[str, Any]]:
    return (dict(value) for value in values if isinstance(value, Mapping))


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(16):
            yield from batch.to_pylist()


def _shard_rows(path: Path) -> Iterator[dict[str, Any]]:
    for _, sample in webdataset._samples(path):
        fields = webdataset._fields(sample)
        pictures = {f".{name}" for name in fields} & set(_files.PICTURES)
        # `image` and `caption` say the same as the member's own extension.
        yield {k: v for k, v in fields.items() if k != "txt" and f".{k}" not in pictures}


_READERS = {
    "csv_file": _csv_rows,
    "json_file": _json_rows,
    "parquet": _parquet_rows,
    "webdataset": _shard_rows,
}
