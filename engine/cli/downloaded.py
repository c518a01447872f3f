"""Models that were downloaded before: whether their bytes are those that a lock names.

The cache of `huggingface_hub` is read as it lies on the disk; the client itself is slow to import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine.plan import lock
from engine.plan.lock import Drift, Facts


def drifts(
    held: Facts, environ: Mapping[str, str], digest_file: Callable[[Path], str]
) -> Iterator[Drift]:
    """Yield every downloaded file of a locked model whose bytes are not the locked ones."""
    cache = _folder(environ)
    for fact, model, commit, file in lock.model_files(held):
        path = cache / f"models--{model.replace('/', '--')}" / "snapshots" / commit / file
        old = held[fact]
        if old is not None and path.is_file():
            new = _digest(path, old.partition(":")[0], digest_file)
            if new != old:
                yield Drift(fact, old, new)


def _digest(path: Path, kind: str, digest_file: Callable[[Path], str]) -> str:
    """Return the digest of a file as the hub gives it: of large files its SHA-256, else git's."""
    if kind == "sha256":
        return f"sha256:{digest_file(path.resolve())}"
    content = path.read_bytes()
    header = b"blob %d\0" % len(content)
    return f"git:{hashlib.sha1(header + content, usedforsecurity=False).hexdigest()}"


def _folder(environ: Mapping[str, str]) -> Path:
    """Return the cache of the client, by the same variables."""
    above = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "~")) / ".cache")
    home = environ.get("HF_HOME") or str(Path(above) / "huggingface")
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or Path(home) / "hub").expanduser()
