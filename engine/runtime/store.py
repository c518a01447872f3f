"""Artifacts on disk by key: a folder that is complete or not there, and never changes.

    artifacts/<key[:2]>/<key>/   files, read-only, and manifest.json
    realised/<digest>.json       early cut-off: equal work on equal content -> the key that has it
    scratch/<key>/               journals and checkpoints; survive a kill, go when the key is there
    locks/ tmp/ cache/ runs/

A folder gets its name in `artifacts` by one rename, after its files and its manifest have reached
the disk; so a crash at any instant leaves no entry or a whole one. Deleting any entry is safe.

Files carry one constant time of change. A file with another one was touched since: it is hashed
before it is used, and an artifact that is not what was published does not exist any more. What
changed without a trace in `stat`, on a failing disk, is found by hashing all (`verify.py`).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact, FileEntry, Manifest, is_read
from engine.plan import keys
from engine.plan.stage import Node
from engine.runtime import durable, hashing
from engine.runtime.locks import KeyLock

MANIFEST = "manifest.json"
SEALED_NS = 10**18  # time of change of every published file: 2001-09-09 01:46:40 UTC
_SEAL = ',\n "digest": "'
Parents = Mapping[str, Mapping[str, Artifact]]  # port -> label -> artifact
Reads = Mapping[str, Sequence[str]]  # port -> the row sets, files and folders that are read
_ALL: Reads = {}


class Store:
    """A folder of artifacts that many runs share. Making the value writes nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.cache = root / "cache"
        self._artifacts = str(root / "artifacts")
        self._realised = root / "realised"

    def get(self, key: str) -> Artifact | None:
        """Return the artifact of a key, or None if it is not there or not whole."""
        name = f"{self._artifacts}/{key[:2]}/{key}"
        if not os.path.exists(name):  # noqa: PTH110  # most keys of a new plan; pathlib is slow
            return None
        path = Path(name)
        manifest = read_manifest(path / MANIFEST)
        if manifest is None or not all(_is_whole(path, entry) for entry in manifest.files):
            return None
        return Artifact(path, manifest)

    def get_all(self, keys: Iterable[str]) -> dict[str, Artifact]:
        """Return the artifacts of those keys that have one."""
        found = {key: self.get(key) for key in keys}
        return {key: artifact for key, artifact in found.items() if artifact is not None}

    def fetch(self, key: str) -> Artifact | None:
        """Return the artifact of a key with all its files in place, or None."""
        return self.get(key)

    @contextmanager
    def working_on(self, key: str) -> Iterator[None]:
        """Keep the scratch of a key while a process works on it; here it lies where it is safe."""
        yield

    def offer(self, artifact: Artifact) -> None:
        """Make sure that every machine that shares the store can have an artifact."""

    def keep_run(self, run: str) -> None:
        """Put a finished run where others find it; here it is."""

    def share(self, name: str) -> None:
        """Put a small file of the folder where others find it; here it is."""

    def bring(self, folder: str) -> None:
        """Bring the small files that others shared in a folder; here they are."""

    def manifests(self) -> Iterator[Manifest]:
        """Stream the manifests of all artifacts."""
        for path in sorted(self.root.glob(f"artifacts/*/*/{MANIFEST}")):
            manifest = read_manifest(path)
            if manifest is not None:
                yield manifest

    def manifest(self, key: str) -> Manifest | None:
        """Return the manifest of a key, whether or not its files are whole."""
        return read_manifest(self.root / "artifacts" / key[:2] / key / MANIFEST)

    def lock(self, key: str) -> KeyLock:
        """Return the lock that a process must hold while it works on a key."""
        return KeyLock(self.root / "locks", key)

    def scratch(self, key: str) -> Path:
        """Return the scratch folder of a key, made if need be."""
        path = self.root / "scratch" / key
        path.mkdir(parents=True, exist_ok=True)
        return path

    def forget(self, key: str) -> None:
        """Remove the scratch folder of a key: what is in it is of no use."""
        _remove(self.root / "scratch" / key)

    def staging(self, key: str) -> Path:
        """Return a new empty folder to be published; what dead writers of the key left is removed.

        The caller holds the lock of the key.
        """
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{key}-*"):
            _remove(leftover)
        path = folder / f"{key}-{os.urandom(4).hex()}"
        path.mkdir()
        return path

    def discard(self, staging: Path) -> None:
        """Remove a staging folder that will not be published."""
        _remove(staging)

    def publish(
        self,
        node: Node,
        staging: Path,
        counts: Mapping[str, float],
        parents: Parents,
        reads: Reads = _ALL,
    ) -> Artifact:
        """Seal a staging folder and give it its name; its scratch goes.

        The caller holds the lock of the key. Raises ValueError for what is not a plain file.
        """
        files = _sealed(staging)
        artifact = self._put(node, staging, files, counts, parents)
        self._remember(realised_key(node, parents, reads), node.key)
        return artifact

    def link(self, node: Node, parents: Parents, reads: Reads = _ALL) -> Artifact | None:
        """Publish a node without running it, if the same work was done on equal inputs before.

        Returns None when it was not, or when another process has done it or is at work on the key.
        """
        done = self._with_realised_key(realised_key(node, parents, reads))
        if done is None:
            return None
        lock = self.lock(node.key)
        if not lock.try_acquire():
            return None
        try:
            if self.get(node.key) is not None:
                return None  # an entry that may have readers is never put in place again
            staging = self.staging(node.key)
            for entry in done.manifest.files:
                _link_file(done.file(entry.name), staging / entry.name)
            return self._put(node, staging, done.manifest.files, done.manifest.counts, parents)
        finally:
            lock.release()

    def _put(
        self,
        node: Node,
        staging: Path,
        files: tuple[FileEntry, ...],
        counts: Mapping[str, float],
        parents: Parents,
    ) -> Artifact:
        manifest = Manifest(
            key=node.key,
            stage=node.stage,
            files=files,
            counts=dict(counts),
            parents=tuple(sorted({a.manifest.key for p in parents.values() for a in p.values()})),
            preimage=node.preimage,
            content_digest=keys.digest([[entry.name, entry.sha256] for entry in files]),
        )
        _write_synced(staging / MANIFEST, _sealed_text(manifest))
        for folder in _folders(files):
            durable.sync(staging / folder)
        self.move_in(node.key, staging)
        _remove(self.root / "scratch" / node.key)
        artifact = self.get(node.key)
        assert artifact is not None
        return artifact

    def move_in(self, key: str, staging: Path) -> None:
        """Give a sealed folder its name; what was there stays if it is whole."""
        path = self.folder(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self.get(key) is not None:  # a process that stood still comes late
                _remove(staging)
                return
            # Somebody deleted a part of the entry by hand; what is left has no value.
            broken = staging.with_name(f"{staging.name}-broken")
            path.rename(broken)
            staging.rename(path)
            _remove(broken)
        durable.sync(path.parent)

    def _remember(self, realised: str, key: str) -> None:
        self._realised.mkdir(parents=True, exist_ok=True)
        path = self._realised / f"{realised}.json"
        write_whole(path, json.dumps({"key": key}) + "\n")

    def _with_realised_key(self, realised: str) -> Artifact | None:
        try:
            text = (self._realised / f"{realised}.json").read_text(encoding="utf-8")
            return self.get(json.loads(text)["key"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def folder(self, key: str) -> Path:
        """Return where the artifact of a key is, or would be."""
        return self.root / "artifacts" / key[:2] / key


def realised_key(node: Node, parents: Parents, reads: Reads = _ALL) -> str:
    """Return the key a node has when its inputs are named by content instead of by key.

    Only what the node reads of them counts (`reads`, by port; a port not in it is read whole).
    """
    content = {
        port: {label: _content(found, reads.get(port, ())) for label, found in labels.items()}
        for port, labels in parents.items()
        if labels
    }
    return keys.digest({**node.preimage, "inputs": content})


def _content(artifact: Artifact, reads: Sequence[str]) -> str:
    if not reads:
        return artifact.manifest.content_digest
    files = artifact.manifest.files
    return keys.digest([[file.name, file.sha256] for file in files if is_read(file.name, reads)])


def stays_inside(name: str) -> bool:
    """Tell whether a file name of a manifest leads nowhere but into its artifact."""
    parts = name.split("/")
    return not name.startswith("/") and "\\" not in name and not {"", ".", ".."} & set(parts)


def write_whole(path: Path, text: str) -> None:
    """Write a file that other processes see whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_manifest(path: Path) -> Manifest | None:
    """Return a manifest, or None if it is not there or not, byte by byte, what was written."""
    try:
        whole = path.read_text(encoding="utf-8")
        text, mark, seal = whole.rpartition(_SEAL)
        if mark and seal != f'{keys.text_digest(text)}"\n}}\n':
            return None
        # Manifests of engines before 0.2 have no seal; half of one is an unknown key below.
        data: dict[str, Any] = json.loads(f"{text}\n}}" if mark else whole)
        files = tuple(FileEntry(**entry) for entry in data.pop("files"))
        return Manifest(files=files, parents=tuple(data.pop("parents")), **data)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _sealed_text(manifest: Manifest) -> str:
    """Return the JSON of a manifest, with the digest of all before it as its last value."""
    data = asdict(replace(manifest, files=()))  # which copies each file field by field, slowly
    data["files"] = [
        {"name": entry.name, "size_bytes": entry.size_bytes, "sha256": entry.sha256}
        for entry in manifest.files
    ]
    text = json.dumps(data, indent=1, sort_keys=True).removesuffix("\n}")
    return f'{text}{_SEAL}{keys.text_digest(text)}"\n}}'


def _is_whole(folder: Path, entry: FileEntry) -> bool:
    with suppress(OSError):
        found = os.stat(f"{folder}/{entry.name}")  # noqa: PTH116  # an artifact may have many
        if found.st_size != entry.size_bytes:
            return False
        return found.st_mtime_ns == SEALED_NS or _is_sound(folder / entry.name, entry)
    return False


def _is_sound(path: Path, entry: FileEntry) -> bool:
    """Hash a file that was touched; if nothing in it changed, seal it again."""
    if file_digest(path) != entry.sha256:
        return False
    with suppress(OSError):  # a store that may only be read is hashed each time
        os.utime(path, ns=(SEALED_NS, SEALED_NS))
    return True


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    return hashing.digest_file(str(path)).hex()


def _plain_files(folder: str, prefix: str = "") -> Iterator[str]:
    """Yield the names of all files below a folder. Raise ValueError for what is no plain file."""
    for entry in list(os.scandir(f"{folder}/{prefix}")):
        if entry.is_dir(follow_symlinks=False):
            yield from _plain_files(folder, f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            yield prefix + entry.name
        else:
            raise ValueError(f"`{entry.name}` is not a plain file: an artifact holds nothing else")


def _sealed(folder: Path) -> tuple[FileEntry, ...]:
    """Hash all files of a folder, bring them to the disk and make them read-only."""
    names = sorted(_plain_files(str(folder)), key=lambda name: name.split("/"))
    size_bytes = sum(os.stat(f"{folder}/{name}").st_size for name in names)  # noqa: PTH116
    entries = hashing.side_by_side(partial(_entry, str(folder)), names, size_bytes)
    durable.bring_to_disk(folder, names)
    return tuple(entries)


def _folders(files: Iterable[FileEntry]) -> set[str]:
    """Return all folders on the way to files, "" for the one they are named from."""
    found = {""}
    for name in {entry.name.rpartition("/")[0] for entry in files}:
        parts = name.split("/")
        found.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return found


def _entry(folder: str, name: str) -> FileEntry:
    descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sha256 = hashing.digest_open(descriptor).hex()
        os.fchmod(descriptor, 0o444)
        os.utime(descriptor, ns=(SEALED_NS, SEALED_NS))
        return FileEntry(name, os.fstat(descriptor).st_size, sha256)
    finally:
        os.close(descriptor)


def seal(path: Path) -> None:
    """Make a file read-only and give it the time of change of published files."""
    path.chmod(0o444)
    os.utime(path, ns=(SEALED_NS, SEALED_NS))


def _remove(folder: Path) -> None:
    """Remove a folder with all that is in it; most have nothing in them, or are not there."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        import shutil  # half as long to import as all the rest of a small publication takes

        shutil.rmtree(folder, ignore_errors=True)


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        import shutil

        shutil.copyfile(source, target)
        seal(target)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)
