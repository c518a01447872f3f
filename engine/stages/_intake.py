"""Reads a source in spans: each finished span is journalled, so a kill costs at most one span each.

A span's folder in scratch holds its rows (records and problems, in order) and its images; it gets
its name by a rename when it is whole. Spans are read by processes of their own where the machine
allows, because decoding pictures is what takes the time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import images, plugin, records
from engine.images import ImageBank, ImageError, ImageWriter
from engine.plugin import Use
from engine.records import Meta, Record, RecordError
from engine.sources import Problem, Row, Source, SourceContext

SPAN_ROWS = 2048
_ROWS = "rows.jsonl"


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


@dataclass(frozen=True, slots=True)
class Task:
    """One span of a source, as it is sent to a process."""

    use: Use
    span: range
    folder: Path  # made by a rename when the span is read


def read(use: Use, context: SourceContext, span: range | None) -> Iterator[Taken | Problem]:
    """Yield the rows of a source, decoded once to see that each image is whole."""
    source: Source = plugin.load("sources", use.name)
    decoded: dict[str, str] = {}
    for row in source.rows(plugin.settings_of("sources", use), context, span):
        yield row if isinstance(row, Problem) else _taken(row, decoded)


def spans(num_rows: int) -> list[range]:
    """Cut a source into spans of rows."""
    return [
        range(start, min(start + SPAN_ROWS, num_rows)) for start in range(0, num_rows, SPAN_ROWS)
    ]


def read_spans(
    tasks: Sequence[Task], context: SourceContext, num_workers: int
) -> Iterator[Iterator[Taken | Problem]]:
    """Yield the rows of each span, in order, reading spans that are not journalled yet."""
    if num_workers < 2:
        for task in tasks:
            journal(task, context)
            yield _replay(task.folder)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Spawned, not forked: the engine runs threads, and a fork would copy their locks.
    spawning = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, spawning, _remember, (context,))
    try:
        for task, _ in zip(tasks, pool.map(_journal_in_worker, tasks), strict=True):
            yield _replay(task.folder)
    finally:
        pool.shutdown(cancel_futures=True)


def journal(task: Task, context: SourceContext) -> None:
    """Read one span into its folder, unless it is there."""
    if task.folder.exists():
        return
    part = task.folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    with (part / _ROWS).open("w", encoding="utf-8") as lines, ImageWriter(part) as bank:
        for item in read(task.use, context, task.span):
            lines.write(json.dumps(_item_json(item, bank), ensure_ascii=False) + "\n")
    part.rename(task.folder)


# One context for the life of a worker: sources remember what they listed for it.
_context: SourceContext | None = None


def _remember(context: SourceContext) -> None:
    global _context  # a pool's initializer has no other way to hand over a value
    _context = context


def _journal_in_worker(task: Task) -> None:
    assert _context is not None
    journal(task, _context)


def _item_json(item: Taken | Problem, bank: ImageWriter) -> dict[str, object]:
    if isinstance(item, Problem):
        return {"problem": [item.source_id, item.reason, item.detail]}
    for encoded in item.images:
        bank.add(encoded)
    return {"record": records.to_json(item.record)}


def _replay(folder: Path) -> Iterator[Taken | Problem]:
    bank = ImageBank([folder])
    with (folder / _ROWS).open(encoding="utf-8") as lines:
        for row in (json.loads(line) for line in lines):
            if "problem" in row:
                yield Problem(*row["problem"])
            else:
                record = records.from_json(row["record"])
                yield Taken(record, tuple(bank.encoded(digest) for digest in record.images))


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
