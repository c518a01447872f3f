"""Rows from a JSON list or JSON lines: pairs, questions, LLaVA conversations, or messages.

Images are paths (one, or a list) relative to `image_root`, which is the file's own folder unless
the recipe says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
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

LINES = (".jsonl", ".ndjson")
SUFFIXES = (".json", *LINES)


def rows(params: Params, context: SourceContext, span: range | None) -> Iterator[Row | Problem]:
    """Yield the rows of all files, in the order of their names."""
    start, stop = (0, None) if span is None else (span.start, span.stop)
    for path, number, value in islice(_values(params, context.locate), start, stop):
        yield _row(value, params, path, number, _tables.image_root(params, path, context.locate))


def num_rows(params: Params, context: SourceContext) -> int:
    """Return the number of rows, unreadable lines included."""
    return sum(1 for _ in _values(params, context.locate))


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


def _values(params: Params, locate: Locate) -> Iterator[tuple[Path, int, Any]]:
    """Yield file, row number and value; in place of an unreadable one, the error."""
    for path in _files.located_files(params.path, locate, SUFFIXES):
        values = _from_lines(path) if path.suffix in LINES else _from_list(path)
        for number, value in enumerate(values, start=1):
            yield path, number, value


def _from_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as lines:
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    yield error


def _from_list(path: Path) -> Iterator[Any]:
    """Yield the items of a list one by one; the last one is the error if the file is cut off."""
    text = path.read_text(encoding="utf-8-sig")
    decoder = json.JSONDecoder()
    place = _skip(text, 0, "")
    if text[place : place + 1] != "[":
        raise StageError(
            f"`{path.name}` is not a list of rows", hint="one object per line? call it .jsonl"
        )
    place = _skip(text, place + 1, "")
    while text[place : place + 1] != "]":
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            yield error
            return
        yield value
        place = _skip(text, place, ",")


def _skip(text: str, place: int, also: str) -> int:
    while text[place : place + 1] in (" ", "\n", "\r", "\t", *also):
        place += 1
    return place


PLUGIN = Source(version=1, params=Params, rows=rows, fingerprint=fingerprint, num_rows=num_rows)
