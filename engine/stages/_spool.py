"""Records on the disk that are read back in another order; held is where each lies."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from engine.records import Record, to_json


class Spool:
    """A file of records without a name, gone when it is closed or the process ends."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by `close`
        self._end = 0

    def add(self, record: Record) -> int:
        """Append a record; return its place."""
        place = self._end
        self._file.seek(place)
        self._end += self._file.write(json.dumps(to_json(record)).encode() + b"\n")
        return place

    def row(self, place: int) -> dict[str, Any]:
        """Return the JSON form of the record at a place."""
        self._file.seek(place)
        row: dict[str, Any] = json.loads(self._file.readline())
        return row

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
