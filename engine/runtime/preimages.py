"""Pre-images of all artifacts, for the reasons of a plan: a cache in one file that grows.

Reading twenty thousand manifests takes two seconds of processor time. Here each artifact is a line,
told by its key and its stage without being parsed. What the store holds is asked of its folders
each time: a line whose artifact has gone is passed over, an artifact without a line is read and
gets one. Deleting the file is safe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from engine.plan import diff
from engine.runtime.store import Store, write_whole

NAME = "preimages-1.jsonl"
_KEY_CHARS = 64
_START = 2 + _KEY_CHARS + 4  # `["KEY", "STAGE", {...}, {...}]`: where the stage begins
_FEW = 64  # artifacts that are not worth a line yet


class Stored:
    """Pre-images of one stage, parsed when they are wanted; the latest known last."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines
        self._parsed: dict[bytes, Mapping[str, Any] | None] = {}

    def nearest(self, new: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what `diff.nearest` does; those that differ in inputs alone are found as text."""
        rest = f"{_json(_but_inputs(new))}]\n".encode()
        same = [line for line in self.lines if line.endswith(rest)]
        found = (self._preimage(line) for line in same or self.lines)
        return diff.nearest(new, (preimage for preimage in found if preimage is not None))

    def latest(self, num: int) -> Stored:
        """Return the latest of them."""
        return self if num >= len(self.lines) else Stored(self.lines[-num:])

    def _preimage(self, line: bytes) -> Mapping[str, Any] | None:
        if line not in self._parsed:
            self._parsed[line] = _preimage(line)
        return self._parsed[line]


def by_stage(store: Store, stages: Collection[str]) -> dict[str, Stored]:
    """Return the pre-images of the artifacts of some stages."""
    missing = set(_keys(store))
    lines, num_stale = [], 0
    for line in _lines(store):
        key = line[2 : 2 + _KEY_CHARS].decode(errors="replace")
        if key in missing and line.endswith(b"]\n"):
            missing.discard(key)
            lines.append(line)
        else:
            num_stale += 1
    found = (store.manifest(key) for key in sorted(missing))
    added = [_line(item.key, item.stage, item.preimage) for item in found if item is not None]
    with suppress(OSError):  # a store that cannot be written is read as well
        _keep(store, lines, added, num_stale)
    of_stage: dict[str, list[bytes]] = {stage: [] for stage in stages}
    for line in (*lines, *added):
        stage = line[_START : line.find(b'"', _START)].decode(errors="replace")
        if stage in of_stage:
            of_stage[stage].append(line)
    return {stage: Stored(chosen) for stage, chosen in of_stage.items()}


def _keep(store: Store, lines: Sequence[bytes], added: Sequence[bytes], num_stale: int) -> None:
    """Add new lines at the end; write all anew when most are of artifacts that have gone."""
    if num_stale > len(lines) + _FEW:
        write_whole(store.cache / NAME, b"".join((*lines, *added)).decode())
    elif len(added) > _FEW:
        store.cache.mkdir(parents=True, exist_ok=True)
        with (store.cache / NAME).open("ab") as file:
            file.write(b"".join(added))


def _keys(store: Store) -> Iterator[str]:
    """Yield the keys of all artifacts."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for part in os.listdir(store.root / "artifacts"):  # noqa: PTH208  # names, no paths
            with suppress(NotADirectoryError, FileNotFoundError):
                yield from os.listdir(store.root / "artifacts" / part)  # noqa: PTH208


def _lines(store: Store) -> list[bytes]:
    try:
        return (store.cache / NAME).read_bytes().splitlines(keepends=True)
    except OSError:
        return []


def _line(key: str, stage: str, preimage: Mapping[str, Any]) -> bytes:
    # Inputs first: what is equal but for them ends in equal bytes.
    return (_json([key, stage, preimage.get("inputs"), _but_inputs(preimage)]) + "\n").encode()


def _but_inputs(preimage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in preimage.items() if name != "inputs"}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _preimage(line: bytes) -> Mapping[str, Any] | None:
    """Return the pre-image in a line, None if it was damaged."""
    try:
        _, _, inputs, rest = json.loads(line)
        return {**rest, **({} if inputs is None else {"inputs": inputs})}
    except (ValueError, TypeError):
        return None
