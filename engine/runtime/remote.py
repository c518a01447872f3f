"""A folder of an object store, as the shared store needs it: whole objects, told apart by version.

Any fsspec URL will do. Each call is tried a few times with growing, jittered pauses, because an
object store throttles, stalls and hangs up in the best of times. What stays wrong is a
`RemoteError` that says what to do and holds no secret.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from engine.diagnostics import StageError

NUM_TRIES = 3  # of ours; S3's own client tries each a few times itself
FIRST_PAUSE_S = 0.5
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60
# By name, as each backend has its own: what another try cannot mend.
_FINAL = ("NoCredentialsError", "PermissionError", "FileNotFoundError", "InvalidAccessKeyId")
_S3 = ("s3://", "s3a://")
_UNMET = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
Result = TypeVar("Result")


class RemoteError(StageError):
    """The shared store cannot be reached or used."""


class Remote:
    """The objects below a URL. Names are relative, with slashes."""

    def __init__(self, url: str, *, pause_s: float = FIRST_PAUSE_S) -> None:
        self.url = url.rstrip("/")
        self._pause_s = pause_s
        self._fs, self._root = _opened(self.url)
        self._is_s3 = self.url.startswith(_S3)

    def read(self, name: str) -> bytes | None:
        """Return an object, or None if there is none."""
        with suppress(FileNotFoundError):
            return bytes(self._found(lambda: self._fs.cat_file(self._path(name))))
        return None

    def write(self, name: str, content: bytes) -> None:
        """Put a small object in place, whole."""
        self._again(lambda: self._fs.pipe_file(self._path(name), content))

    def create(self, name: str, content: bytes) -> bool:
        """Put an object in place unless there is one; return whether it was put.

        Atomic on S3 (If-None-Match). Elsewhere it is as atomic as the backend makes it.
        """
        try:
            self._again(lambda: self._fs.pipe_file(self._path(name), content, mode="create"))
        except FileExistsError:
            return self.read(name) == content  # a try before this one may have arrived
        return True

    def version(self, name: str) -> str | None:
        """Return what changes when an object is replaced, or None if there is no object."""
        with suppress(FileNotFoundError):
            found = self._found(lambda: self._fs.info(self._path(name)))
            return str(found.get("ETag", ""))
        return None

    def replace(self, name: str, content: bytes, version: str) -> bool:
        """Put an object in place of one version of it; return whether that one was still there.

        Atomic on S3 (If-Match). Elsewhere the object is replaced whatever it is.
        """
        try:
            self._again(lambda: self._put_if(name, content, version))
        except FileExistsError:
            return self.read(name) == content  # a try before this one may have arrived
        return True

    def upload(self, path: Path, name: str) -> None:
        """Copy a file up; large ones in parts, visible when the last one is there."""
        self._again(lambda: self._fs.put_file(str(path), self._path(name)))

    def download(self, name: str, path: Path) -> None:
        """Copy an object down. Raise FileNotFoundError if there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._found(lambda: self._fs.get_file(self._path(name), str(path)))

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all objects below a folder, relative to it."""
        base = self._path(folder) + "/"
        found: list[str] = []
        with suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            found = self._found(lambda: list(self._fs.find(base)))
        yield from (name.removeprefix(base) for name in sorted(found) if name.startswith(base))

    def remove(self, name: str) -> None:
        """Remove an object; no harm if there is none."""
        with suppress(FileNotFoundError):
            self._found(lambda: self._fs.rm_file(self._path(name)))

    def remove_all(self, folder: str) -> None:
        """Remove all objects below a folder."""
        for name in list(self.names(folder)):
            self.remove(f"{folder}/{name}")

    def _put_if(self, name: str, content: bytes, version: str) -> None:
        only = {"IfMatch": version} if self._is_s3 and version else {}
        try:
            self._fs.pipe_file(self._path(name), content, **only)
        except OSError as error:
            answer = getattr(error.__cause__, "response", {})
            is_gone = isinstance(error, FileNotFoundError)
            if is_gone or answer.get("Error", {}).get("Code") in _UNMET:
                raise FileExistsError(name) from error
            raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _found(self, work: Callable[[], Result]) -> Result:
        """Do what may find nothing: then FileNotFoundError is an answer."""
        return self._again(work, FileNotFoundError)

    def _again(
        self, work: Callable[[], Result], answer: type[Exception] = FileExistsError
    ) -> Result:
        """Do something up to a few times; an error of the type `answer` is passed on."""
        for attempt in range(NUM_TRIES):
            try:
                return work()
            except answer:
                raise
            except Exception as error:  # every backend has errors of its own
                if attempt == NUM_TRIES - 1 or _is_final(error):
                    raise RemoteError(
                        f"the shared store {self.url} cannot be used: {_told(error)}",
                        hint="look at the URL, the network and the credentials in the environment",
                        is_transient=not _is_final(error),
                    ) from None
            time.sleep(self._pause_s * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError("the last try returns or raises")


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it. Raise RemoteError if there is none."""
    try:
        import fsspec

        options: dict[str, Any] = {"skip_instance_cache": True}
        if url.startswith(_S3):
            client = {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "retries": {"mode": "standard", "total_max_attempts": 2},
            }
            options |= {"config_kwargs": client, "use_listings_cache": False}
        found, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise RemoteError(
            f"no way to open the store {url.split('://')[0]}://...: {error}",
            hint="`pip install adapt-mllm[s3]` brings S3; other stores need their fsspec package",
        ) from None
    return found, root.rstrip("/")


def _is_final(error: BaseException) -> bool:
    return type(error).__name__ in _FINAL or any(name in str(error) for name in _FINAL)


def _told(error: Exception) -> str:
    """Return the first line of an error; URLs in it may be signed, so their queries go."""
    import re

    text = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"\?\S+", "?...", text)[:200]
