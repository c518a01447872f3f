"""Which failures are worth another attempt, and after what pause. Decisions only.

Worth one: the network, a server that asks for patience, a process that something outside ended
(memory above all: the next attempt halves its batches). A stage that says what is wrong with the
data or the recipe, or a bug, would only say the same again. A crash is told apart: a stage that
isolates rows finds the guilty one by being started again and again, with fewer rows at a time.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.diagnostics import EngineDiedError, ExitCode, StageError

MAX_CRASHES = 64  # of a part that isolates rows: enough to find a dozen of bad ones
PAUSE_FACTOR = 4.0
_LOST = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
_CRASHED = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
# By name: the libraries that raise them are not imported here.
_TRANSIENT_NAMES = frozenset(
    (
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "ReadError",
        "RemoteProtocolError",
        "ChunkedEncodingError",
        "IncompleteRead",
        "EndpointConnectionError",
        "SlowDown",
    )
)
_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt: why, and whether it should take less memory."""

    reason: str
    shrinks: bool = False
    is_crash: bool = False


def retry(
    exit_code: int,
    last: Mapping[str, Any] | None,
    message: str,
    *,
    out_of_memory: bool = False,
) -> Retry | None:
    """Return why a node's process that ended without a result is tried again, or None.

    `last` is its last message, None when it died without one; `exit_code` is negative for a signal.
    Batches shrink only where memory was the reason: another split of a batch changes the last bits.
    """
    if last is not None and last.get("type") == "failed":
        found = last.get("transient")
        return Retry(str(last["message"]), found == "memory", found == "crash") if found else None
    if -exit_code in _CRASHED:
        return Retry(message, is_crash=True)
    if exit_code == ExitCode.STOPPED_RESUMABLE or -exit_code in _LOST:
        return Retry(message, shrinks=out_of_memory)
    return None


def pause_s(attempt: int, first_s: float) -> float:
    """Return how long to wait before an attempt; the first retry is attempt 1."""
    return first_s * PAUSE_FACTOR ** (attempt - 1)


def kind_of(error: BaseException) -> str | None:
    """Return `network`, `memory` or `crash` if an error, or its cause, may pass; None otherwise."""
    if isinstance(error, EngineDiedError):
        return "crash"
    # A stage that says so itself has tried smaller batches already.
    if not isinstance(error, StageError) and _is_memory(error):
        return "memory"
    cause: BaseException | None = error
    while cause is not None:
        if _is_network(cause):
            return "network"
        cause = cause.__cause__
    return None


def _is_memory(error: BaseException) -> bool:
    named = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
    return named or "can't allocate memory" in str(error)


def _is_network(error: BaseException) -> bool:
    if isinstance(error, StageError):
        return error.is_transient
    if type(error).__name__ == "OfflineModeIsEnabled":
        return False  # it is a ConnectionError, and asked for
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in _BUSY or type(error).__name__ in _TRANSIENT_NAMES
