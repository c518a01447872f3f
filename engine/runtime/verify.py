"""Hashes what a store holds and names what is damaged. Reads, but for `set_aside`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.artifacts import FileEntry, Manifest
from engine.plan import keys
from engine.runtime.store import MANIFEST, Store, file_digest, read_manifest

WAITING_FILES = 256  # hashed or queued at once, so that memory stays flat


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was published."""

    key: str
    stage: str  # empty where the manifest cannot be read
    file: str  # name inside the artifact
    what: str  # "missing", "3 bytes instead of 5", ...


@dataclass(slots=True)
class Found:
    """What a check went through and found."""

    num_artifacts: int = 0
    num_files: int = 0
    num_bytes: int = 0
    damages: list[Damage] = field(default_factory=list)

    @property
    def damaged_keys(self) -> list[str]:
        """The artifacts that are of no use, in order."""
        return list(dict.fromkeys(damage.key for damage in self.damages))


Progress = Callable[[Found], None]


def verify(
    store: Store,
    wanted: Iterable[str] | None = None,
    *,
    num_threads: int = 1,
    progress: Progress = lambda found: None,
) -> Found:
    """Hash every file of the wanted artifacts that are there, or of all.

    Hashing lets other threads run, so that several files are hashed at once.
    """
    found = Found()
    chosen = sorted(set(wanted)) if wanted is not None else all_keys(store)
    waiting: list[tuple[Manifest, FileEntry, Future[str | None]]] = []
    with ThreadPoolExecutor(max(1, num_threads)) as pool:
        for key in chosen:
            folder = store.folder(key)
            if not folder.is_dir():
                continue
            found.num_artifacts += 1
            manifest = _checked_manifest(folder, key, found)
            if manifest is None:
                continue
            for entry in manifest.files:
                waiting.append((manifest, entry, pool.submit(_problem, folder, entry)))
            while len(waiting) >= WAITING_FILES:
                _take(waiting.pop(0), found)
                progress(found)
        for item in waiting:
            _take(item, found)
            progress(found)
    found.damages.sort(key=lambda damage: (damage.key, damage.file))
    return found


def set_aside(store: Store, key: str) -> Path | None:
    """Move an artifact out of the way, so that it is made anew; None while somebody works on it."""
    import secrets

    lock = store.lock(key)
    if not lock.try_acquire():
        return None
    try:
        target = store.root / "damaged" / f"{key}-{secrets.token_hex(4)}"
        target.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # somebody else did
            store.folder(key).rename(target)
        return target
    finally:
        lock.release()


def all_keys(store: Store) -> Iterator[str]:
    """Yield the key of every entry of a store, whole or not, in order."""
    root = store.root / "artifacts"
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.is_dir():
            yield from sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _checked_manifest(folder: Path, key: str, found: Found) -> Manifest | None:
    manifest = read_manifest(folder / MANIFEST)
    if manifest is None:
        found.damages.append(Damage(key, "", MANIFEST, "missing or not what was written"))
        return None
    if manifest.key != key or keys.digest(manifest.preimage) != key:
        what = "belongs to another key"
        found.damages.append(Damage(key, manifest.stage, MANIFEST, what))
    named = {MANIFEST, *(entry.name for entry in manifest.files)}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in named and (path.is_symlink() or not path.is_dir()):
            found.damages.append(Damage(key, manifest.stage, name, "was not published"))
    return manifest


def _problem(folder: Path, entry: FileEntry) -> str | None:
    path = folder / entry.name
    try:
        size = path.stat().st_size
        if size != entry.size_bytes:
            return f"{size:,} bytes instead of {entry.size_bytes:,}"
        return None if file_digest(path) == entry.sha256 else "other content of the same size"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _take(item: tuple[Manifest, FileEntry, Future[str | None]], found: Found) -> None:
    manifest, entry, hashed = item
    what = hashed.result()
    found.num_files += 1
    found.num_bytes += entry.size_bytes
    if what is not None:
        found.damages.append(Damage(manifest.key, manifest.stage, entry.name, what))
