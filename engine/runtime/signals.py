"""What is sent to a run to end it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def collected(received: list[int]) -> Iterator[None]:
    """Collect SIGINT, SIGTERM and, unless ignored (nohup), SIGHUP instead of dying of them."""

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = (signal.SIGINT, signal.SIGTERM, *(() if is_ignored else (signal.SIGHUP,)))
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
