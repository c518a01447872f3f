"""What a stage reads and writes: folders of files with a manifest.

An artifact exists completely or not at all: its manifest is written last, by the store, and nothing
in it changes afterwards. Rows are JSON lines in shards `<name>-00000.jsonl`; reading streams, so
memory stays flat as data grows. Rows that cannot be used land in the shard set `quarantine`, each
with its source id and a reason, and are counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.records import Record

QUARANTINE = "quarantine"
SHARD_ROWS = 4096


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact."""

    name: str  # posix path relative to the artifact
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact is, where it came from and what is in it."""

    key: str
    stage: str
    files: tuple[FileEntry, ...]
    counts: Mapping[str, float]
    parents: tuple[str, ...]  # keys of the input artifacts
    preimage: Mapping[str, Any]  # what the key is the digest of
    content_digest: str  # digest of names and digests of all files: what early cut-off compares


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published, read-only result of one node."""

    path: Path
    manifest: Manifest
    reads: tuple[str, ...] = ()  # what may be read of it; empty: all
    # Brings its files here, where they may be elsewhere; called before each look, quick when done.
    fetch: Callable[[], object] | None = field(default=None, compare=False)

    def file(self, name: str) -> Path:
        """Return the path of a file of this artifact."""
        self._check(name)
        return self.path / name

    def json(self, name: str) -> Any:
        """Read a JSON file of this artifact."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def shards(self, name: str) -> tuple[Path, ...]:
        """Return the shards of a row set, in order; empty when the set has no rows."""
        self._check(name)
        return tuple(sorted(self.path.glob(f"{name}-[0-9]*.jsonl")))

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Stream the raw rows of a row set."""
        for shard in self.shards(name):
            with shard.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines)

    def records(self, name: str) -> Iterator[Record]:
        """Stream the records of a row set."""
        from engine import records

        return (records.from_json(row) for row in self.rows(name))

    def num_rows(self, name: str) -> int:
        """Return how many rows a row set has, from the manifest's counts."""
        self._check(name)
        return int(self.manifest.counts.get(name, 0))

    def _check(self, name: str) -> None:
        assert is_read(name, self.reads), f"`{name}` is read, but the stage's port does not say so"
        if self.fetch is not None:
            self.fetch()


def is_read(name: str, reads: Sequence[str]) -> bool:
    """Tell whether a row set, a file or a file of a folder is among what is read; empty: all is."""
    return not reads or any(
        name == read or name.startswith((f"{read}-", f"{read}/")) for read in reads
    )


def _as_json(row: Record) -> dict[str, Any]:
    from engine import records

    return records.to_json(row)


class RowWriter:
    """Writes one row set in shards; use it as a context manager."""

    def __init__(self, folder: Path, name: str) -> None:
        self.num_rows = 0
        self._folder = folder
        self._name = name
        self._file: IO[str] | None = None

    def write(self, row: Record | Mapping[str, Any]) -> None:
        """Append one record or raw row."""
        value = row if isinstance(row, Mapping) else _as_json(row)
        self._shard().write(json.dumps(value, ensure_ascii=False) + "\n")
        self.num_rows += 1

    def _shard(self) -> IO[str]:
        if self._file is None or self.num_rows % SHARD_ROWS == 0:
            self.close()
            path = self._folder / f"{self._name}-{self.num_rows // SHARD_ROWS:05d}.jsonl"
            self._file = path.open("w", encoding="utf-8")
        return self._file

    def close(self) -> None:
        """Close the open shard."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(slots=True)
class Outputs:
    """The empty folder a stage fills. Writers opened here are counted and closed by `counts`."""

    path: Path
    _writers: dict[str, RowWriter] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def rows(self, name: str) -> RowWriter:
        """Return the writer of a row set, opening it on first use."""
        if name not in self._writers:
            self._writers[name] = RowWriter(self.path, name)
        return self._writers[name]

    def file(self, name: str) -> Path:
        """Return a path to write a file at; its folder exists."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file, sorted and indented, so that it diffs well."""
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
        self.file(name).write_text(text + "\n", encoding="utf-8")

    def quarantine(self, source_id: str, reason: str, detail: str = "") -> None:
        """Put a row into the ledger: which row, why (a short constant), and what was seen."""
        self.rows(QUARANTINE).write({"source_id": source_id, "reason": reason, "detail": detail})
        self.count(f"{QUARANTINE}: {reason}")

    def count(self, name: str, number: float = 1) -> None:
        """Add to a named count of the manifest."""
        self._counts[name] += number  # type: ignore[assignment]  # Counter is typed int only

    def counts(self) -> dict[str, float]:
        """Close every writer and return all counts; a row set's count is its number of rows."""
        for name, writer in self._writers.items():
            writer.close()
            self._counts[name] = writer.num_rows
        return dict(self._counts)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The read-only artifacts a stage was given, by port name.

    A port declared `many` holds any number of artifacts, each under a label.
    """

    ports: Mapping[str, Mapping[str, Artifact]]

    def __getitem__(self, port: str) -> Artifact:
        """Return the only artifact of a port."""
        (artifact,) = self.ports[port].values()
        return artifact

    def get(self, port: str) -> Artifact | None:
        """Return the only artifact of an optional port, or None."""
        return self[port] if self.ports.get(port) else None

    def many(self, port: str) -> Mapping[str, Artifact]:
        """Return the labelled artifacts of a `many` port."""
        return self.ports.get(port, {})
