"""Asks the Hugging Face hub what models and datasets are at a revision, or why they are not there.

Nothing is downloaded. `huggingface_hub` does the asking, so HF_ENDPOINT, HF_TOKEN and
HF_HUB_ETAG_TIMEOUT hold here as everywhere. What it raises becomes a `HubError` in the words of
this engine: its own texts differ between releases. Nothing that a server or a token says is
repeated.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from engine.diagnostics import StageError
from engine.plan.lock import Reference

NOT_FOUND, UNAVAILABLE = "hub-not-found", "hub-unavailable"
NO_REVISION, GATED = "hub-no-revision", "hub-gated"
ASKED_AT_ONCE = 8
TRIES = 3
FIRST_WAIT_S = 0.5  # doubled from try to try, unless the hub says how long to wait
REACH_S = 5  # a hub that is there says so sooner
MAX_WAIT_S = 20  # a hub that wants more is not waited for
_OVERLOADED = (408, 429, 500, 502, 503, 504)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model or dataset at one commit."""

    commit: str
    files: Mapping[str, str]  # name -> sha256:... or, for what git itself keeps, git:...


class HubError(Exception):
    """The hub did not say what a model or dataset is; `code` and `hint` are for a diagnostic."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def snapshot(kind: str, name: str, revision: str | None) -> Snapshot:
    """Return a model or dataset at a revision. Raise HubError when it cannot be had."""
    from huggingface_hub import HfApi, constants

    api, timeout_s = HfApi(), constants.HF_HUB_ETAG_TIMEOUT
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        found = _patiently(
            lambda: ask(name, revision=revision, files_metadata=True, timeout=timeout_s)
        )
        if found.gated:  # its facts are public, its files are not
            _patiently(lambda: _refuse_without_access(api, kind, found, timeout_s))
        return _read(found)
    except Exception as error:
        told = _told(error, kind, name, revision, api.endpoint)
        if told.code == NO_REVISION:
            with suppress(Exception):  # it is a help, and no more
                told.hint = (
                    f"its newest commit is `{ask(name, timeout=timeout_s).sha}`; {told.hint}"
                )
        raise told from error


def snapshots(revisions: Mapping[Reference, str | None]) -> dict[Reference, Snapshot | HubError]:
    """Return each model or dataset at a revision, or why it cannot be had, asked at once.

    The threads are daemons: Ctrl-C must not wait for a hub that does not answer.
    """
    todo: SimpleQueue[tuple[Reference, str | None]] = SimpleQueue()
    done: SimpleQueue[tuple[Reference, Snapshot | Exception]] = SimpleQueue()
    for item in revisions.items():
        todo.put(item)

    def work() -> None:
        with suppress(Empty):
            while True:
                reference, revision = todo.get_nowait()
                done.put((reference, _attempt(reference, revision)))

    for _ in range(min(ASKED_AT_ONCE, len(revisions))):
        Thread(target=work, daemon=True).start()
    found: dict[Reference, Snapshot | HubError] = {}
    for _ in revisions:
        reference, answer = done.get()
        if isinstance(answer, Exception) and not isinstance(answer, HubError):
            raise answer  # a bug: a thread that dies with it would be waited for without end
        found[reference] = answer
    return {reference: found[reference] for reference in revisions}


def _attempt(reference: Reference, revision: str | None) -> Snapshot | Exception:
    try:
        return snapshot(reference.kind, reference.name, revision)
    except Exception as error:
        return error


def refusal(kind: str, name: str, revision: str | None) -> StageError | None:
    """Ask the hub why a model or dataset could not be had; None where it sees no reason.

    The loading clients drop the reason on its way up, or keep it in texts of their own alone.
    """
    if is_offline():
        return None
    try:
        snapshot(kind, name, revision)
    except HubError as error:
        at_fault = "revision" if error.code == NO_REVISION else kind
        is_busy = error.code == UNAVAILABLE
        return StageError(
            str(error),
            hint="run it again later; finished stages are kept" if is_busy else error.hint,
            is_transient=is_busy,
            code=error.code,
            about=("model", name) if kind == "model" else (at_fault,),
        )
    return None


def out_of_reach() -> str | None:
    """Return why nothing at all comes from the hub; None when it answers, whatever it says."""
    import httpx2
    from huggingface_hub import constants, get_session

    reason = ""
    for _ in range(2):
        try:
            get_session().head(constants.ENDPOINT, timeout=REACH_S)
        except httpx2.TransportError as error:
            reason = _reason(error, None)
        else:
            return None
    return f"{constants.ENDPOINT} cannot be reached ({reason})"


def fetch_config(model: str, revision: str | None) -> bool:
    """Download a model's config, which is small, into the cache; tell whether it came."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(model, "config.json", revision=revision)
    except Exception:  # the loader will say why, if it matters
        return False
    return True


def is_offline() -> bool:
    """Tell whether the client itself is told to stay offline (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _patiently(ask: Callable[[], _Answer]) -> _Answer:
    """Ask again, a few times, when the hub is overloaded or the line is bad."""
    for number in range(1, TRIES):
        try:
            return ask()
        except Exception as error:  # what the client raises has no common base
            wait_s = _wait_s(error, FIRST_WAIT_S * 2 ** (number - 1))
            if wait_s is None or wait_s > MAX_WAIT_S:
                raise
            time.sleep(wait_s)
    return ask()


def _wait_s(error: Exception, default: float) -> float | None:
    """Return how long to wait before asking again; None when that is of no use."""
    import httpx2

    response = getattr(error, "response", None)
    if response is not None and response.status_code in _OVERLOADED:
        said = response.headers.get("Retry-After", "")
        return float(said) if said.isdigit() else default
    is_transport = isinstance(error, httpx2.TransportError) and not _is_offline(error)
    return default if is_transport else None


def _is_offline(error: Exception) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def _refuse_without_access(api: Any, kind: str, found: Any, timeout_s: float) -> None:
    """Ask for a file as a download would; the client's own check of access may wait for ever."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    for file in (found.siblings or ())[:1]:
        name, commit = file.rfilename, found.sha
        url = hf_hub_url(found.id, name, repo_type=kind, revision=commit, endpoint=api.endpoint)
        get_hf_file_metadata(url, timeout=timeout_s)


def _read(found: Any) -> Snapshot:
    """Return what an answer says. Raise ValueError when it says no commit."""
    if not _COMMIT.fullmatch(found.sha or ""):
        raise ValueError("no commit")
    files = {}
    for file in found.siblings or ():
        if file.lfs is not None:
            files[file.rfilename] = f"sha256:{file.lfs.sha256}"
        elif file.blob_id:
            files[file.rfilename] = f"git:{file.blob_id}"
    return Snapshot(found.sha, files)


def _told(error: Exception, kind: str, name: str, revision: str | None, endpoint: str) -> HubError:
    """Return an error of the client in the words of this engine."""
    from huggingface_hub import errors

    what, page = f"the {kind} `{name}`", f"{endpoint}/{'datasets/' * (kind == 'dataset')}{name}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            NO_REVISION,
            f"{what} has no revision `{revision}`",
            f"its commits, branches and tags are at {page}/tree/main",
        )
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return HubError(
            GATED,
            f"{what} is gated, and you have no access to it",
            f"accept the terms at {page} and set HF_TOKEN to a token of that account",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return HubError(
            NOT_FOUND,
            f"{what} does not exist at {endpoint}, or is private",
            "check its name; for a private one set HF_TOKEN; a local folder starts with ./",
        )
    if _is_offline(error):
        return offline(kind, name)
    return HubError(
        UNAVAILABLE,
        f"{endpoint} did not say what {what} is: {_reason(error, status)}",
        "try again later; an existing lock is left as it is",
    )


def offline(kind: str, name: str) -> HubError:
    """Return the error of asking a hub while offline."""
    return HubError(
        "hub-offline",
        f"the hub cannot be asked for the {kind} `{name}`: this machine is offline",
        "lock on a machine with a network and commit the lock; planning then needs none",
    )


def _reason(error: Exception, status: int | None) -> str:
    import httpx2

    if status == 429:
        return "it asks for fewer requests (429)"
    if status is not None:
        return f"it answered with status {status}"
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx2.ConnectError):
        return "no connection"
    if isinstance(error, httpx2.TransportError):
        return "the answer broke off"
    return "the answer is not what a hub says"
