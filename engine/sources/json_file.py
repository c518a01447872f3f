"""Rows from a JSON list or JSON lines: pairs, questions, LLaVA conversations, or messages.

Images are paths (one, or a list) relative to `image_root`, which is the file's own folder unless
the recipe says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from engine.sources import (
    DigestFile,
    Locate,
    Problem,
    Row,
    Source,
    SourceContext,
    _columns,
    _files,
    _json_list,
    _tables,
)
from engine.sources._json_list import Mark
from engine.sources._tables import FileParams as Params

LINES = (".jsonl", ".ndjson")
SUFFIXES = (".json", *LINES)
MARK_ROWS = 1024


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the rows of all files, in the order of their names."""
    for path, number, value in _values(params, context, span):
        yield _row(value, params, path, number, _tables.image_root(params, path, context.locate))


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of rows, unreadable lines included."""
    return sum(listed.num_rows for listed in _listed(params.path, context))


def fingerprint(params: Params, locate: Locate, digest_file: DigestFile) -> dict[str, object]:
    """Return a digest over the files and the pictures that they may name."""
    return _tables.fingerprint(params, SUFFIXES, locate, digest_file)


def _row(value: Any, params: Params, path: Path, number: int, root: Path) -> Row | Problem:
    source_id = f"{path.name} row {number}"
    if isinstance(value, json.JSONDecodeError):
        return Problem(source_id, "not JSON", str(value))
    if not isinstance(value, dict):
        return Problem(source_id, "not a mapping", str(value)[:80])
    return _columns.build(value, params, source_id, partial(_files.read_under, root))


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file, its number of rows, and where every so many of them begin, if it is a list."""

    path: Path
    num_rows: int
    marks: tuple[Mark, ...]


@lru_cache(maxsize=1)
def _listed(path: str, context: SourceContext) -> tuple[_Listed, ...]:
    return tuple(map(_looked_over, _files.located_files(path, context.locate, SUFFIXES)))


def _looked_over(path: Path) -> _Listed:
    if path.suffix in LINES:
        return _Listed(path, sum(1 for _ in _lines(path)), ())
    marks, number = [], 0
    for number, (mark, _) in enumerate(_json_list.items(path), start=1):
        if number % MARK_ROWS == 1:
            marks.append(mark)
    return _Listed(path, number, tuple(marks))


def _values(
    params: Params, context: SourceContext, span: range | None
) -> Iterator[tuple[Path, int, Any]]:
    """Yield file, row number and value; in place of an unreadable one, the error."""
    if span is None:
        for path in _files.located_files(params.path, context.locate, SUFFIXES):
            for number, value in enumerate(_values_of(_Listed(path, 0, ()), 0), start=1):
                yield path, number, value
        return
    first = 0
    for listed in _listed(params.path, context):
        wanted = range(max(span.start - first, 0), min(span.stop - first, listed.num_rows))
        first += listed.num_rows
        if wanted:
            values = islice(_values_of(listed, wanted.start), len(wanted))
            for number, value in zip(wanted, values, strict=True):
                yield listed.path, number + 1, value


def _values_of(listed: _Listed, first: int) -> Iterator[Any]:
    """Yield the values of a file from row number `first` on, counted from 0."""
    if listed.path.suffix in LINES:
        yield from map(_parsed, islice(_lines(listed.path), first, None))
        return
    known = min(first // MARK_ROWS, len(listed.marks) - 1)
    start = listed.marks[known] if listed.marks else _json_list.START
    num_before = known * MARK_ROWS if listed.marks else 0
    items = _json_list.items(listed.path, start)
    yield from (value for _, value in islice(items, first - num_before, None))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as lines:
        yield from (line for line in lines if line.strip())


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return error


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows)
