"""Reads a source in spans: each finished span is kept, so a kill costs at most one span.

A span's folder in scratch holds its rows (records and problems, in order), its images and the
digests of both; it gets its name by a rename when it is whole. Spans may be read by several
processes, because decoding pictures is what takes the time.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from engine import images, plugin, records
from engine.images import ImageBank, ImageError, ImageWriter
from engine.plugin import Use
from engine.records import Meta, Record, RecordError
from engine.sources import Problem, Row, Source, SourceContext

SPAN_ROWS = 2048
_ROWS, _SPAN = "rows.jsonl", "span.json"


@dataclass(frozen=True, slots=True)
class Locate:
    """Finds paths of the recipe; unlike a function, it can be sent to another process."""

    folder: Path

    def __call__(self, name: str) -> Path:
        """Return where a path written in the recipe is."""
        return (self.folder / Path(name).expanduser()).resolve()


@dataclass(frozen=True, slots=True)
class Taken:
    """A row that is whole, and its encoded images."""

    record: Record
    images: tuple[bytes, ...]


def read(use: Use, context: SourceContext, span: range | None) -> Iterator[Taken | Problem]:
    """Yield the rows of a source, decoded once to see that each image is whole."""
    source: Source = plugin.load("sources", use.name)
    yield from _checked(source.rows(plugin.settings_of("sources", use), context, span))


def spans(num_rows: int) -> list[range]:
    """Cut a source into spans of rows."""
    return [
        range(start, min(start + SPAN_ROWS, num_rows)) for start in range(0, num_rows, SPAN_ROWS)
    ]


def kept(folder: Path, items: Callable[[], Iterable[Taken | Problem]]) -> Path:
    """Return the folder that keeps a span: as it was found, if it is whole, else filled now."""
    if not _is_whole(folder):
        _write(folder, items())
    return folder


def stream(use: Use, context: SourceContext, scratch: Path) -> Iterator[Path]:
    """Yield the spans of a source of unknown length, one by one, each kept in its folder.

    The source is read from its start again, but rows of spans that were kept are not decoded.
    """
    source: Source = plugin.load("sources", use.name)
    rows = source.rows(plugin.settings_of("sources", use), context, None)
    num_kept = 0
    for number in count():
        folder = span_folder(scratch, number)
        if _is_whole(folder):
            num_kept += SPAN_ROWS
        else:
            next(islice(rows, num_kept, num_kept), None)  # past the rows of the spans before
            num_kept = 0
            _write(folder, _checked(islice(rows, SPAN_ROWS)))
        yield folder
        if _num_items(folder) < SPAN_ROWS:
            return


def span_folder(scratch: Path, number: int) -> Path:
    """Return where a span is kept."""
    return scratch / f"span-{number:06d}"


def replay(folder: Path) -> Iterator[Taken | Problem]:
    """Yield the rows of a span that is kept."""
    bank = ImageBank([folder])
    with (folder / _ROWS).open(encoding="utf-8") as lines:
        for row in (json.loads(line) for line in lines):
            if "problem" in row:
                yield Problem(*row["problem"])
            else:
                record = records.from_json(row["record"])
                yield Taken(record, tuple(bank.encoded(digest) for digest in record.images))


def _write(folder: Path, items: Iterable[Taken | Problem]) -> None:
    for leftover in (folder, *folder.parent.glob(f"{folder.name}.*.part")):
        shutil.rmtree(leftover, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        _fill(part, items)
        part.rename(folder)
    except OSError:  # a full disk needs the room back
        shutil.rmtree(part, ignore_errors=True)
        raise


def _fill(folder: Path, items: Iterable[Taken | Problem]) -> None:
    num_items = 0
    with (folder / _ROWS).open("w", encoding="utf-8") as lines, ImageWriter(folder) as bank:
        for item in items:
            lines.write(json.dumps(_item_json(item, bank), ensure_ascii=False) + "\n")
            num_items += 1
    span = {"num_items": num_items, "digests": {p.name: _digest(p) for p in folder.iterdir()}}
    (folder / _SPAN).write_text(json.dumps(span), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    """Tell whether a span is there as it was written: a disk may have been full, or lose bits."""
    try:
        span = json.loads((folder / _SPAN).read_bytes())
        return all(_digest(folder / name) == digest for name, digest in span["digests"].items())
    except (OSError, ValueError, KeyError):
        return False


def _num_items(folder: Path) -> int:
    return int(json.loads((folder / _SPAN).read_bytes())["num_items"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _item_json(item: Taken | Problem, bank: ImageWriter) -> dict[str, object]:
    if isinstance(item, Problem):
        return {"problem": [item.source_id, item.reason, item.detail]}
    for encoded in item.images:
        bank.add(encoded)
    return {"record": records.to_json(item.record)}


def _checked(rows: Iterable[Row | Problem]) -> Iterator[Taken | Problem]:
    decoded: dict[str, str] = {}
    for row in rows:
        yield row if isinstance(row, Problem) else _taken(row, decoded)


def _taken(row: Row, decoded: dict[str, str]) -> Taken | Problem:
    """Check a row; `decoded` remembers digests and what is wrong with them, "" for nothing."""
    digests = [hashlib.sha256(encoded).hexdigest() for encoded in row.images]
    for digest, encoded in zip(digests, row.images, strict=True):
        if digest not in decoded:
            decoded[digest] = _why_broken(encoded)
        if decoded[digest]:
            return Problem(row.source_id, "unreadable image", decoded[digest])
    meta = Meta(row.kind, row.source_id, row.licence, extra=row.extra)
    try:
        return Taken(records.make_record(digests, row.turns, meta), row.images)
    except RecordError as error:
        return Problem(row.source_id, "image markers do not match images", str(error))


def _why_broken(encoded: bytes) -> str:
    try:
        images.decode(encoded)
    except ImageError as error:
        return str(error)
    return ""
