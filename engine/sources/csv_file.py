"""Rows from CSV files with a header, or TSV files (`.tsv`): pairs or questions.

Images are paths relative to `image_root`, which is the file's own folder unless the recipe says
otherwise.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

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

SUFFIXES = (".csv", ".tsv")
NumberedRow = tuple[Path, int, dict[str, str]]


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the rows of all files, in the order of their names."""
    first, num_wanted = (0, None) if span is None else (span.start, len(span))
    for path, number, raw in islice(_rows(params, context.locate, first), num_wanted):
        yield _row(raw, params, path, number, _tables.image_root(params, path, context.locate))


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of rows."""
    return sum(1 for _, table in _tables_of(params, context.locate) for row in table.reader if row)


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> dict[str, object]:
    """Return a digest over the files and the pictures that they may name."""
    return _tables.fingerprint(params, SUFFIXES, locate, digest_file)


def _row(raw: dict[str, str], params: Params, path: Path, number: int, root: Path) -> Row | Problem:
    source_id = f"{path.name} row {number}"
    if None in raw or None in raw.values():
        return Problem(source_id, "row does not fit the header", str(list(raw.values()))[:80])
    # An empty cell is no value, so that a missing caption is reported as one.
    filled = {name: value for name, value in raw.items() if value.strip()}
    return _columns.build(filled, params, source_id, partial(_files.read_under, root))


def _rows(params: Params, locate: Locate, first: int) -> Iterator[NumberedRow]:
    """Yield the rows from number `first` on, counted over all files from 0."""
    for path, table in _tables_of(params, locate):
        num_skipped = 0
        if first:  # without making mappings of them
            num_skipped = sum(1 for _ in islice(filter(None, table.reader), first))
            first -= num_skipped
        yield from ((path, number, raw) for number, raw in enumerate(table, num_skipped + 1))


def _tables_of(params: Params, locate: Locate) -> Iterator[tuple[Path, csv.DictReader[str]]]:
    """Yield each file with its table, whose header is read and has the columns that are wanted."""
    for path in _files.located_files(params.path, locate, SUFFIXES):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            table = csv.DictReader(lines, delimiter=delimiter)
            _columns.check_header(params, table.fieldnames or (), f"`{path.name}`")
            yield path, table


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows)
