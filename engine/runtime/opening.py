"""Opens a store: a folder, or a shared store with a folder of this machine before it."""

from __future__ import annotations

from pathlib import Path

from engine.runtime.store import Store


def open_store(folder: Path, remote: str = "") -> Store:
    """Return a store. Raise RemoteError when there is no way to reach a URL of that kind."""
    if not remote:
        return Store(folder)
    from engine.runtime.remote import Remote
    from engine.runtime.shared import SharedStore

    return SharedStore(folder, Remote(remote))
