"""What people say of an artifact's rows: one journal a grader, and artifacts made of it.

    grades/<key of what is graded>/<digest of the grader>/journal.jsonl    every answer, as it came
    grades/<key of what is graded>/<digest of the grader>/<key>.json       an artifact made of them

A line of a journal is on the disk before the grader sees the next question, and is never changed:
taking an answer back is a line more. Closing a session publishes what the journal says as an
artifact; earlier ones stay. Grades belong to what was graded, not to one run: another run that
made the same rows has them as well, and they are kept as long as a run that reaches those rows is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact
from engine.plan import keys
from engine.plan.stage import Node
from engine.runtime import durable
from engine.runtime.answers import Event, end_line, fold, in_order, lines_of, row_of
from engine.runtime.locks import KeyLock
from engine.runtime.store import Store, write_whole

STAGE = "review"
VERSION = 1
FOLDER = "grades"
ROWS = "grades"
EVENTS = "events"
_JOURNAL = "journal.jsonl"
_KEY = re.compile(r"[0-9a-f]{64}")
_GRADER = re.compile(r"[0-9a-f]{16}")
_LEAST_STEP_S = 1e-6  # between two lines, so that their order is their time whatever the clock does


@dataclass(frozen=True, slots=True)
class Session:
    """The grades of one person on the rows of one artifact."""

    store: Store
    of: str  # key of the artifact whose rows are graded
    grader: str

    @property
    def folder(self) -> Path:
        """Where its journal is."""
        return self.store.root / self._name

    @property
    def _name(self) -> str:
        return f"{FOLDER}/{self.of}/{_id_of(self.grader)}"

    def lock(self) -> KeyLock:
        """Return the lock that a process must hold while it adds to the journal."""
        return self.store.lock(lock_key(self.of, _id_of(self.grader)))

    def events(self) -> list[Event]:
        """Return every answer in order, of the journal and of all that was published."""
        self.store.bring(self._name)
        published = (event for found in self.published() for event in found.rows(EVENTS))
        return in_order([*published, *lines_of(self.folder / _JOURNAL)])

    def published(self) -> Iterator[Artifact]:
        """Stream the artifacts of earlier sessions that are still there."""
        for key in _published_keys(self.folder):
            artifact = self.store.get(key)
            if artifact is not None:
                yield artifact

    def publish(self, tasks: Artifact | None, run_id: str) -> Artifact | None:
        """Make an artifact of what was said so far; None when nothing was.

        The caller holds the lock of the session. The same words make the same artifact.
        """
        events = self.events()
        graded = [row_of(found, self.grader) for found in fold(events)]
        if not graded:
            return None
        node = _node(self, run_id, events)
        said = node.preimage["events"]
        same = (a for a in self.published() if a.manifest.preimage.get("events") == said)
        found = next(same, None) or self._put(node, tasks, events, graded)
        pointer = self.folder / f"{found.manifest.key}.json"
        write_whole(pointer, json.dumps({"grader": self.grader}) + "\n")
        self.store.share(f"{self._name}/{pointer.name}")
        return found

    def _put(
        self,
        node: Node,
        tasks: Artifact | None,
        events: Iterable[Event],
        graded: list[dict[str, Any]],
    ) -> Artifact:
        lock = self.store.lock(node.key)
        assert lock.try_acquire(), "the lock of the session lets one process publish"
        try:
            staging = self.store.staging(node.key)
            counts = {
                ROWS: _write(staging / f"{ROWS}-00000.jsonl", graded),
                EVENTS: _write(staging / f"{EVENTS}-00000.jsonl", events),
            }
            parents = {} if tasks is None else {"tasks": {"tasks": tasks}}
            return self.store.publish(node, staging, counts, parents)
        finally:
            lock.release()


class Journal:
    """Adds answers to a session's journal, each on the disk before `add` returns."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = session.events()
        session.folder.mkdir(parents=True, exist_ok=True)
        path = session.folder / _JOURNAL
        end_line(path)
        self._file = path.open("ab", buffering=0)
        durable.sync(session.folder)
        if not self.events:
            self.add(grader=session.grader)

    def add(self, **said: Any) -> Event:
        """Append one line, with its time, and bring it to the disk. Raise OSError if that fails."""
        last = self.events[-1]["at"] if self.events else 0.0
        event = {"at": max(round(time.time(), 6), round(last + _LEAST_STEP_S, 6)), **said}
        line = (json.dumps(event) + "\n").encode()
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:  # take half a line away again, or the next one would be lost with it
            os.ftruncate(self._file.fileno(), end)
            raise
        self.events.append(event)
        return event

    def note(self, sample: Mapping[str, Any]) -> None:
        """Keep how tasks were chosen, once."""
        if all(event.get("sample") != sample for event in self.events):
            self.add(sample=dict(sample))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def rows(store: Store, of: str) -> list[dict[str, Any]]:
    """Return what all graders say of the rows of an artifact, a row per grader and task.

    What is not published yet counts as well: a session may be open, or was killed.
    """
    store.bring(f"{FOLDER}/{of}")
    graders = sorted(_graders(store.root / FOLDER / of))
    sessions = [Session(store, of, grader) for grader in graders]
    return [
        row_of(found, session.grader) for session in sessions for found in fold(session.events())
    ]


def published_keys(store: Store, of: str) -> list[str]:
    """Return the keys of the artifacts that hold grades of an artifact's rows."""
    folders = _folders(store.root / FOLDER / of, _GRADER)
    return sorted(key for folder in folders for key in _published_keys(folder))


def graded(store: Store) -> Iterator[tuple[str, str, Path]]:
    """Yield every session of a store: the key of what is graded, its grader's id, its folder."""
    for of in _folders(store.root / FOLDER, _KEY):
        for folder in _folders(of, _GRADER):
            yield of.name, folder.name, folder


def lock_key(of: str, grader_id: str) -> str:
    """Return under which name a session is locked."""
    return f"{of}.{grader_id}"


def take_in(store: Store, artifact: Artifact) -> None:
    """Let a store know an artifact of grades that came from elsewhere."""
    preimage = artifact.manifest.preimage
    session = Session(store, str(preimage["of"]), str(preimage["grader"]))
    session.folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"grader": session.grader}) + "\n"
    write_whole(session.folder / f"{artifact.manifest.key}.json", content)


def is_of(preimage: Mapping[str, Any], planned: Iterable[str]) -> bool:
    """Tell whether a pre-image is that of grades of one of some artifacts."""
    is_sound = preimage.get("stage") == STAGE and isinstance(preimage.get("grader"), str)
    return is_sound and preimage.get("of") in set(planned)


def _node(session: Session, run_id: str, events: list[Event]) -> Node:
    """Return the node of an artifact of grades: what people said is an ingredient of its key."""
    preimage = {
        "stage": STAGE,
        "version": VERSION,
        "run": run_id,
        "of": session.of,
        "grader": session.grader,
        "samples": [event["sample"] for event in events if "sample" in event],
        "events": keys.digest(events),
    }
    name = f"{STAGE}/{_id_of(session.grader)}"
    return Node(name, STAGE, {}, {}, keys.digest(preimage), preimage, 0, {}, {})


def _graders(folder: Path) -> set[str]:
    """Return the names of all who graded: journals and pointers begin with them."""
    found = set()
    for path in (*folder.glob("*/*.json"), *folder.glob(f"*/{_JOURNAL}")):
        with (
            suppress(ValueError, TypeError, KeyError, OSError),
            path.open(encoding="utf-8") as file,
        ):
            grader = str(json.loads(file.readline())["grader"])
            found |= {grader} if _id_of(grader) == path.parent.name else set()
    return found


def _id_of(grader: str) -> str:
    return hashlib.sha256(grader.encode()).hexdigest()[:16]


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _published_keys(folder: Path) -> list[str]:
    return sorted(p.stem for p in folder.glob("*.json") if _KEY.fullmatch(p.stem))


def _folders(parent: Path, name: re.Pattern[str]) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if name.fullmatch(p.name) and p.is_dir())
