"""How much memory prepared pictures take, from being prepared until the engine has answered."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any


class Load:
    """Counts bytes that are in hand, and lets a thread wait until they are few."""

    def __init__(self, limit_bytes: float) -> None:
        self._limit_bytes = limit_bytes
        self._num_bytes = 0
        self._changed = threading.Condition()

    def add(self, num_bytes: int) -> None:
        """Count bytes that come, or with a minus sign, go."""
        with self._changed:
            self._num_bytes += num_bytes
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until there is room; how much more then comes does not matter."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_bytes < self._limit_bytes)

    def lift(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._limit_bytes = math.inf
            self._changed.notify_all()


def num_bytes(value: Any) -> int:
    """Return how many bytes the tensors of vLLM's nested input take."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(num_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(num_bytes, value))
    return num_bytes(value.data) if hasattr(value, "data") else 0
