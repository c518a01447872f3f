"""Rows from Parquet files: images as bytes, as Hugging Face's {bytes, path}, or as paths.

Only the columns that the rows need are read, a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engine.diagnostics import StageError
from engine.sources import (
    DigestFile,
    Locate,
    Problem,
    Row,
    Source,
    SourceContext,
    _columns,
    _files,
    _tables,
)
from engine.sources._tables import FileParams as Params

SUFFIXES = (".parquet",)
BATCH_ROWS = 64


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the rows of all files, in the order of their names."""
    first = 0
    for path in _files.located_files(params.path, context.locate, SUFFIXES):
        size = _num_rows(path)
        start, stop = (0, size) if span is None else (span.start - first, span.stop - first)
        wanted = range(max(start, 0), min(stop, size))
        read_image = partial(_files.read_under, _tables.image_root(params, path, context.locate))
        for number, raw in _raw_rows(path, params, wanted):
            yield _columns.build(raw, params, f"{path.name} row {number + 1}", read_image)
        first += size


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of rows, from the files' footers."""
    paths = _files.located_files(params.path, context.locate, SUFFIXES)
    return sum(_num_rows(path) for path in paths)


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> dict[str, object]:
    """Return a digest over the files and the pictures that they may name."""
    return _tables.fingerprint(params, SUFFIXES, locate, digest_file)


def _num_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError) as error:
        raise StageError(f"`{path.name}` is not a Parquet file: {error}") from error


def _raw_rows(path: Path, params: Params, wanted: range) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield numbers and values of the wanted rows; row groups without one are not read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        header = file.schema_arrow.names
        _columns.check_header(params, header, f"`{path.name}`")
        columns = [name for name in header if name in _columns.wanted(params)]
        first = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if first < wanted.stop and first + size > wanted.start:
                yield from _group_rows(file, group, columns, first, wanted)
            first += size


def _group_rows(
    file: Any, group: int, columns: list[str], first: int, wanted: range
) -> Iterator[tuple[int, dict[str, Any]]]:
    number = first
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
        if number + batch.num_rows > wanted.start and number < wanted.stop:
            for offset, raw in enumerate(batch.to_pylist()):
                if number + offset in wanted:
                    yield number + offset, raw
        number += batch.num_rows


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows)
