"""A store that several machines share: an object store, with a folder of this machine before it.

    artifacts/<key[:2]>/<key>/...   as in the folder; the manifest is uploaded last
    realised/<digest>.json          as in the folder
    scratch/<key>/...               journals and checkpoints of unfinished nodes, mirrored
    leases/<key>.json               who works on a key: one writer across machines

An artifact is there when its manifest is. Files come down when they are first read, and every one
is hashed on the way. Runs and their logs stay in the folder; they are copied up when they end.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact, Manifest
from engine.plan.stage import Node
from engine.runtime import locks
from engine.runtime.locks import KeyLock
from engine.runtime.remote import Remote, RemoteError
from engine.runtime.store import (
    MANIFEST,
    Parents,
    Reads,
    Store,
    file_digest,
    read_manifest,
    seal,
    stays_inside,
)

LEASE_STALE_S = 60.0
MIRROR_EVERY_S = 30.0
_PASSING = (".tmp", ".part")


class SharedStore(Store):
    """A store whose artifacts live in an object store."""

    def __init__(self, root: Path, remote: Remote) -> None:
        super().__init__(root)
        self.remote = remote
        self._known: set[str] = set()  # keys whose manifests were seen up there: they stay

    def get(self, key: str) -> Artifact | None:
        """Return the artifact of a key; its files may still have to come down."""
        found = super().get(key)
        if found is not None:
            return found
        manifest = self._remote_manifest(key)
        if manifest is None:
            return None
        return Artifact(self.folder(key), manifest, fetch=partial(self.fetch, key))

    def get_all(self, keys: Iterable[str]) -> dict[str, Artifact]:
        """Return the artifacts of those keys that have one; one listing tells of all of them."""
        listed = (name.split("/") for name in self.remote.names("artifacts"))
        self._known |= {parts[1] for parts in listed if parts[2:] == [MANIFEST]}
        found = {
            key: self.get(key) if key in self._known else super(SharedStore, self).get(key)
            for key in keys
        }
        return {key: artifact for key, artifact in found.items() if artifact is not None}

    def fetch(self, key: str) -> Artifact | None:
        """Bring the files of an artifact into the folder; None if it is nowhere whole."""
        found = super().get(key)
        if found is not None:
            return found
        manifest = self._remote_manifest(key)
        if manifest is None:
            return None
        lock = super().lock(f"{key}.fetch")
        while not lock.try_acquire():
            time.sleep(0.1)
        try:
            return super().get(key) or self._bring_down(key, manifest)
        finally:
            lock.release()

    def lock(self, key: str) -> KeyLock:
        """Return a lock that holds on every machine."""
        return SharedLock(self.root / "locks", key, self.remote)

    def publish(
        self,
        node: Node,
        staging: Path,
        counts: Mapping[str, float],
        parents: Parents,
        reads: Reads = {},  # noqa: B006  # never changed
    ) -> Artifact:
        """Publish in the folder, then in the object store; a half upload is no artifact."""
        artifact = super().publish(node, staging, counts, parents, reads)
        self._send_up(artifact)
        return artifact

    def link(
        self,
        node: Node,
        parents: Parents,
        reads: Reads = {},  # noqa: B006  # never changed
    ) -> Artifact | None:
        """Link in the folder, then publish the link in the object store."""
        artifact = super().link(node, parents, reads)
        if artifact is not None:
            self._send_up(artifact)
        return artifact

    @contextmanager
    def working_on(self, key: str) -> Iterator[None]:
        """Bring down the scratch of a key, and copy up what is finished while work goes on."""
        mirror = Mirror(self.remote, key, self.scratch(key))
        mirror.pull()
        stop = threading.Event()
        beat = partial(_until, stop, MIRROR_EVERY_S, mirror.push)
        thread = threading.Thread(target=beat, daemon=True, name="mirror")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            if self.scratch(key).is_dir() and not self.folder(key).is_dir():
                mirror.push()

    def offer(self, artifact: Artifact) -> None:
        """Upload an artifact that is here alone: a kill may have come between folder and store."""
        key = artifact.manifest.key
        if self._remote_manifest(key) is None:
            self._send_up(artifact)

    def forget(self, key: str) -> None:
        """Remove the scratch of a key, here and up there."""
        super().forget(key)
        self.remote.remove_all(f"scratch/{key}")

    def keep_run(self, run: str) -> None:
        """Copy a finished run's plan, facts, events and report up; done without if it fails."""
        folder = self.runs / run
        with suppress(RemoteError, OSError):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix in (".json", ".jsonl", ".html", ".log"):
                    self.remote.upload(path, f"runs/{run}/{path.relative_to(folder).as_posix()}")

    def share(self, name: str) -> None:
        """Copy a small file of the folder up."""
        self.remote.upload(self.root / name, name)

    def bring(self, folder: str) -> None:
        """Copy down what was shared in a folder and is not here; none of it ever changes."""
        for name in self.remote.names(folder):
            path = self.root / folder / name
            if not path.exists() and stays_inside(name):
                part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
                self.remote.download(f"{folder}/{name}", part)
                part.replace(path)

    def _remember(self, realised: str, key: str) -> None:
        super()._remember(realised, key)
        self.remote.write(f"realised/{realised}.json", json.dumps({"key": key}).encode())

    def _with_realised_key(self, realised: str) -> Artifact | None:
        found = super()._with_realised_key(realised)
        if found is None:
            with suppress(ValueError, KeyError, TypeError):
                content = self.remote.read(f"realised/{realised}.json")
                found = self.get(json.loads(content or b"{}")["key"])
        return self.fetch(found.manifest.key) if found is not None else None

    def _remote_manifest(self, key: str) -> Manifest | None:
        """Return a manifest from the object store; a copy stays here, as it never changes."""
        kept = self.root / "cache" / "manifests" / f"{key}.json"
        content = None
        if key not in self._known:
            content = self.remote.read(f"{_folder(key)}/{MANIFEST}")
            if content is None:
                return None
            self._known.add(key)
        found = _trusted(kept)
        if found is not None:
            return found
        content = content or self.remote.read(f"{_folder(key)}/{MANIFEST}")
        if content is None:
            self._known.discard(key)
            return None
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f".{key}.{secrets.token_hex(4)}")
        part.write_bytes(content)
        part.replace(kept)
        return _trusted(kept)

    def _bring_down(self, key: str, manifest: Manifest) -> Artifact | None:
        """Download into a new folder, hash it, and give it its name."""
        staging = self.staging(f"{key}.fetch")
        for entry in manifest.files:
            path = staging / entry.name
            if not self._is_downloaded(f"{_folder(key)}/{entry.name}", path, entry.sha256):
                self.discard(staging)
                # What is up there is of no use: without its manifest it is made anew.
                self.remote.remove(f"{_folder(key)}/{MANIFEST}")
                self._forget(key)
                return None
            seal(path)
        (staging / MANIFEST).write_bytes(
            (self.root / "cache" / "manifests" / f"{key}.json").read_bytes()
        )
        (staging / MANIFEST).chmod(0o444)
        self.move_in(key, staging)
        return super().get(key)

    def _is_downloaded(self, name: str, path: Path, sha256: str) -> bool:
        for _ in range(2):
            with suppress(FileNotFoundError):
                self.remote.download(name, path)
                if file_digest(path) == sha256:
                    return True
        return False

    def _send_up(self, artifact: Artifact) -> None:
        key = artifact.manifest.key
        for entry in artifact.manifest.files:
            self.remote.upload(artifact.path / entry.name, f"{_folder(key)}/{entry.name}")
        self.remote.upload(artifact.path / MANIFEST, f"{_folder(key)}/{MANIFEST}")
        self._known.add(key)
        self.remote.remove_all(f"scratch/{key}")

    def _forget(self, key: str) -> None:
        self._known.discard(key)
        (self.root / "cache" / "manifests" / f"{key}.json").unlink(missing_ok=True)


class SharedLock(KeyLock):
    """A lock of this machine and a lease in the object store; both are needed.

    A lease names its holder and changes with every heartbeat. One that stays the same for a minute
    of the watcher's own steady clock is dead, whatever the wall clocks say, and is replaced. On S3
    a version that was looked at is replaced (If-Match), so of two watchers one gets it, and a
    holder that wakes up does not write over the new one. Elsewhere the token tells, at publishing.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        remote: Remote,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(folder, key, clock)
        self._remote = remote
        self._name = f"leases/{key}.json"
        self._token = secrets.token_hex(16)
        self._beats = 0
        self._watched: tuple[bytes, float] | None = None

    def try_acquire(self) -> bool:
        """Take lock and lease unless a living holder has one of them."""
        if not super().try_acquire():
            return False
        if self._take_lease():
            return True
        super().release()
        return False

    def touch(self) -> None:
        """Show that the holder is alive, here and up there."""
        super().touch()
        with suppress(RemoteError):  # the next beat may arrive
            self._renew()

    def is_ours(self) -> bool:
        """Tell whether nobody took lock or lease over."""
        return super().is_ours() and self._is_mine()

    def release(self) -> None:
        """Give lease and lock back."""
        with suppress(RemoteError):
            if self._renew():  # so nobody takes it over before it is gone
                self._remote.remove(self._name)
        super().release()

    def _take_lease(self) -> bool:
        if self._remote.create(self._name, self._content()):
            return True
        version = self._remote.version(self._name)  # before the content: a change is noticed
        found = self._remote.read(self._name)
        if version is None or found is None:
            return False  # released at this moment: the next try gets it
        if self._watched is None or self._watched[0] != found:
            self._watched = (found, self._clock())
        if self._clock() - self._watched[1] < LEASE_STALE_S:
            return False
        return self._remote.replace(self._name, self._content(), version)

    def _renew(self) -> bool:
        version = self._remote.version(self._name)
        if version is None or not self._is_mine():
            return False
        self._beats += 1
        return self._remote.replace(self._name, self._content(), version)

    def _is_mine(self) -> bool:
        with suppress(ValueError, TypeError, KeyError):
            return bool(json.loads(self._remote.read(self._name) or b"{}")["token"] == self._token)
        return False

    def _content(self) -> bytes:
        holder: dict[str, Any] = {"token": self._token, "beats": self._beats, **locks.identity()}
        return json.dumps(holder).encode()


class Mirror:
    """Keeps a copy of a key's scratch in the object store, of files that are whole."""

    def __init__(self, remote: Remote, key: str, folder: Path) -> None:
        self._remote = remote
        self._prefix = f"scratch/{key}"
        self._folder = folder
        self._sent: dict[str, tuple[int, int]] = {}  # name -> size, time of change

    def pull(self) -> None:
        """Bring down what another machine had finished and is not here."""
        for name in self._remote.names(self._prefix):
            path = self._folder / name
            if not path.exists() and ".." not in Path(name).parts:
                part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
                self._remote.download(f"{self._prefix}/{name}", part)
                part.replace(path)
            if path.exists():
                self._sent[name] = _stamp(path)

    def push(self) -> None:
        """Copy up what is new; what does not arrive is tried again the next time."""
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            with suppress(FileNotFoundError, RemoteError):
                if path.is_file() and not name.endswith(_PASSING):
                    stamp = _stamp(path)
                    if self._sent.get(name) != stamp:
                        self._remote.upload(path, f"{self._prefix}/{name}")
                        self._sent[name] = stamp


def _trusted(path: Path) -> Manifest | None:
    """Return a manifest that came from elsewhere, unless its file names lead out of its folder."""
    found = read_manifest(path)
    if found is None or not all(stays_inside(entry.name) for entry in found.files):
        return None
    return found


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _until(stop: threading.Event, every_s: float, work: Callable[[], None]) -> None:
    while not stop.wait(every_s):
        work()


def _folder(key: str) -> str:
    return f"artifacts/{key[:2]}/{key}"
