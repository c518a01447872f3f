"""Examples on the disk of the node, so that memory does not grow with the number of rows.

Rows are prepared in chunks; a chunk is one sealed file in the scratch, so a rerun prepares none of
them twice. A file is a header (JSON, its length first) and then the rows: ids as int32, whether
each is trained as bytes, and digests and text as JSON. Only lengths and offsets stay in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from engine.models._inputs import InputMaker
from engine.records import Record
from engine.training import sealed
from engine.training.masks import ROWS_AT_ONCE, Example, examples

Note = tuple[str, str, str]  # source id, reason, detail: a line of the ledger
_LENGTH_BYTES = 8
_TOKEN_BYTES = 5  # int32 and bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """The examples of one file."""

    path: Path
    num_rows: int  # that were to be prepared
    num_tokens: Any  # numpy, per example
    offsets: Any  # numpy, one more than there are examples

    def read(self, place: int) -> Example:
        """Read an example."""
        import numpy as np

        start, end = int(self.offsets[place]), int(self.offsets[place + 1])
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        count = int(self.num_tokens[place])
        ids = np.frombuffer(data, dtype="<i4", count=count)
        trained = np.frombuffer(data, dtype=np.bool_, count=count, offset=4 * count)
        rest = json.loads(data[_TOKEN_BYTES * count :])
        return Example(ids, trained, tuple(rest["digests"]), rest["text"])

    def ledger(self) -> list[Note]:
        """Read which rows are not among the examples, or not whole, and why."""
        return [(row[0], row[1], row[2]) for row in _header(self.path)[0]["ledger"]]


class Examples(Sequence[Example]):
    """All examples of a training, read when they are used."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        import numpy as np

        self.chunks = tuple(chunks)
        counts = [len(chunk.num_tokens) for chunk in chunks]
        self._firsts = np.cumsum([0, *counts])
        none = np.zeros(0, dtype=np.int64)
        self.lengths: list[int] = np.concatenate([none, *(c.num_tokens for c in chunks)]).tolist()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        """Read an example."""
        number = int(self._firsts.searchsorted(index, side="right")) - 1
        return self.chunks[number].read(index - int(self._firsts[number]))

    @property
    def num_rows(self) -> int:
        """Return how many rows there were to prepare."""
        return sum(chunk.num_rows for chunk in self.chunks)

    @property
    def digest(self) -> str:
        """Return a digest of all content; the files' names hold those of theirs."""
        names = "\n".join(chunk.path.name for chunk in self.chunks)
        return hashlib.sha256(names.encode()).hexdigest()

    def ledger(self) -> Iterator[Note]:
        """Stream the ledger in the order of the rows."""
        for chunk in self.chunks:
            yield from chunk.ledger()


def prepare(rows: Iterable[Record], inputs: InputMaker, limit: int, folder: Path) -> Examples:
    """Prepare all rows, or take what an earlier process has prepared of them."""
    chunks = []
    for number, taken in enumerate(_taken(rows)):
        identity = _identity(taken, limit)
        chunk = _finished(folder, number, identity)
        if chunk is None:
            notes: list[Note] = []
            made = examples(taken, inputs, limit, lambda *note, notes=notes: notes.append(note))
            chunk = write(folder, number, list(made), notes, len(taken), identity)
        chunks.append(chunk)
    return Examples(chunks)


def _taken(rows: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(rows)
    while taken := list(islice(rest, ROWS_AT_ONCE)):
        yield taken


def write(
    folder: Path,
    number: int,
    made: Sequence[Example],
    ledger: Sequence[Note],
    num_rows: int,
    identity: str = "",
) -> Chunk:
    """Write the chunk of a number."""
    rests = [json.dumps({"digests": one.digests, "text": one.text}).encode() for one in made]
    header = {
        "identity": identity,
        "num_rows": num_rows,
        "num_tokens": [len(one) for one in made],
        "sizes": [_TOKEN_BYTES * len(a) + len(b) for a, b in zip(made, rests, strict=True)],
        "ledger": [list(note) for note in ledger],
    }
    text = json.dumps(header).encode()
    path = sealed.begin(folder, _stem(number))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for one, rest in zip(made, rests, strict=True):
            file.write(one.ids.astype("<i4").tobytes() + one.is_trained.tobytes() + rest)
    return _open(sealed.seal(path))


def _finished(folder: Path, number: int, identity: str) -> Chunk | None:
    """Return a chunk that is there already and whole; remove others in its place."""
    for path in sealed.found(folder, _stem(number)):
        if sealed.is_whole(path) and _header(path)[0]["identity"] == identity:
            return _open(path)
        path.unlink()
    return None


def _open(path: Path) -> Chunk:
    import numpy as np

    header, start = _header(path)
    offsets = start + np.cumsum([0, *header["sizes"]])
    num_tokens = np.asarray(header["num_tokens"], dtype=np.int64)
    return Chunk(path, header["num_rows"], num_tokens, offsets)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header and where the rows begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        return json.loads(file.read(length)), _LENGTH_BYTES + length


def _stem(number: int) -> str:
    return f"rows-{number:06d}"


def _identity(rows: Sequence[Record], limit: int) -> str:
    """Name a chunk: another recipe may have prepared other rows in the same place."""
    digest = hashlib.sha256(str(limit).encode())
    for row in rows:
        digest.update(json.dumps([row.id, row.meta.source_id, row.images]).encode())
    return digest.hexdigest()
