"""Sources: where rows come from. One file per kind of source; each exports `PLUGIN`.

A source yields `Row` for what it could read and `Problem` for what it could not, and never raises
for a single bad row. The stage `collect` decodes images, builds records and keeps the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.records import Kind, Turn

Locate = Callable[[str], Path]  # a path written in the recipe -> where it is
DigestFile = Callable[[Path], str]  # a file -> SHA-256 of its content


@dataclass(frozen=True, slots=True)
class Row:
    """One row as read: encoded image bytes, and turns whose image parts index into them."""

    source_id: str
    images: tuple[bytes, ...]
    turns: tuple[Turn, ...]
    kind: Kind
    licence: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that could not be read: which, why (a short constant), and what was seen."""

    source_id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SourceContext:
    """What a source may touch. Two contexts are never equal: each is the life of one node."""

    locate: Locate
    is_offline: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of source.

    `rows(params, context, span)` yields rows number span.start .. span.stop - 1, or all for None; a
    source that cannot be cut leaves `num_rows` None and is always read whole.
    It may remember what it listed for a context.
    `fingerprint(params, locate, digest_file)` identifies the content (digests, revision) without
    reading pixels where it can; it enters the key in place of `Neutral` paths. `digest_file`
    returns a file's SHA-256 and may remember it. It raises FileNotFoundError for a missing folder
    or file and ValueError for an empty one.
    """

    version: int
    params: type
    rows: Callable[[Any, SourceContext, range | None], Iterator[Row | Problem]]
    fingerprint: Callable[[Any, Locate, DigestFile], Any]
    num_rows: Callable[[Any, SourceContext], int] | None = None
    # Yields so many rows without fetching what comes after them, where `rows` would fetch it all.
    first: Callable[[Any, SourceContext, int], Iterator[Row | Problem]] | None = None
