"""Finds the request that crashes an engine, over several lives of the process.

Before a request is asked, a line with its digest is appended to a log in scratch, and another when
it is answered; what has only the first was in hand when a process died. After a crash those are
*suspects*: each may only be asked in company of an eighth as many as were in hand, so every further
crash makes the circle smaller, until a suspect dies alone. (With halves there would be thrice as
many crashes, and a large model takes minutes to start.) That one is never asked again: it is a
failed request, goes to the ledger, and all others are answered as if it had not been there.

The runtime says whether the process before ended by a crash (`Machine.has_crashed`): a process that
was killed from outside puts nobody under suspicion.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from engine.backends import (
    Ask,
    Choices,
    Completion,
    Flow,
    Likelihoods,
    Reply,
    Request,
    Result,
    Sampling,
    Session,
)
from engine.backends import _lockstep as lockstep
from engine.diagnostics import StageError
from engine.plan.stage import Tools

GUILTY = "it crashes the engine, asked alone"
SHARE = 8  # of what was in hand, that is asked together afterwards
MAX_IDLE_CRASHES = 3
LOG_BYTES = 2**20  # beyond that a log is written anew, with what is in hand alone
Answer = TypeVar("Answer")
Asked = TypeVar("Asked", Request, Choices)


class Suspicion:
    """What is known of requests that were in hand when the engine died."""

    def __init__(self, folder: Path, name: str, *, has_crashed: bool) -> None:
        self._path = folder / f"{name}.json"
        self._log_path = folder / f"{name}.log"
        self._in_hand: dict[str, int] = {}
        self._size = 0
        self.guilty: set[str] = set()
        self._num_idle = 0  # crashes with nothing in hand
        self._company: dict[str, int] = {}  # suspect -> how many may be in hand with it
        self._read()
        if has_crashed:
            self._accuse()
        self._log_path.unlink(missing_ok=True)
        self._log: int | None = None

    @property
    def is_left(self) -> bool:
        """Tell whether there are suspects that were not answered yet."""
        return bool(self._company)

    def company(self, digest: str) -> int | None:
        """Return how many may be asked together with a suspect; None for all others."""
        return self._company.get(digest)

    def begin(self, digest: str) -> None:
        """Note that a request is asked now."""
        self._in_hand[digest] = self._in_hand.get(digest, 0) + 1
        self._write(f"+{digest}\n")

    def end(self, digest: str) -> None:
        """Note that a request was answered: it is innocent."""
        self._in_hand[digest] -= 1
        if not self._in_hand[digest]:
            del self._in_hand[digest]
        self._write(f"-{digest}\n")
        if self._company.pop(digest, None) is not None:
            self._save()

    def close(self) -> None:
        """Close the log; it is opened again if more is asked."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _write(self, line: str) -> None:
        if self._log is None:
            self._log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size += os.write(self._log, line.encode())
        if self._size > LOG_BYTES:
            os.ftruncate(self._log, 0)
            left = "".join(f"+{digest}\n" * times for digest, times in self._in_hand.items())
            self._size = os.write(self._log, left.encode())

    def _read(self) -> None:
        with suppress(OSError, ValueError):  # damaged: the next crash tells it again
            told = json.loads(self._path.read_text(encoding="utf-8"))
            self.guilty, self._company = set(told["guilty"]), told["company"]
            self._num_idle = told["num_idle"]

    def _accuse(self) -> None:
        """Suspect what was in hand. Raise StageError if it was nothing, time and again."""
        found = sorted(_in_hand(self._log_path))
        self._num_idle += not found
        if len(found) == 1:
            self.guilty.add(found[0])
            self._company.pop(found[0], None)
        elif found:
            self._company |= dict.fromkeys(found, max(1, len(found) // SHARE))
        self._save()
        if self._num_idle >= MAX_IDLE_CRASHES:
            raise StageError(
                f"the process crashed {self._num_idle} times with no request in hand",
                hint="it is no row's fault: look at the log, and at the backend's installation",
            )

    def _save(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        told = {
            "guilty": sorted(self.guilty),
            "company": self._company,
            "num_idle": self._num_idle,
        }
        temporary.write_text(json.dumps(told), encoding="utf-8")
        temporary.replace(self._path)


class Isolated:
    """A session whose process may be started again when a request crashes it."""

    def __init__(
        self, session: Session, suspicion: Suspicion, model: str, *, is_continuous: bool
    ) -> None:
        self._session = session
        self._suspicion = suspicion
        self._model = model  # the same question to another one is another request
        self._is_continuous = is_continuous

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""

        def answer(some: Sequence[Request]) -> list[Completion]:
            return self._session.generate(some, sampling)

        guilty = Completion((), 0, 0, "error", GUILTY)
        digests = [digest_of(one, self._model) for one in requests]
        return self._in_groups(requests, digests, answer, guilty)

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        """Return how likely the choices of each request are, in their order."""
        digests = [digest_of(one.request, self._model) for one in asked]
        return self._in_groups(asked, digests, self._session.score, Likelihoods((), error=GUILTY))

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows side by side; in rounds where there is a suspect among many."""
        if self._is_continuous and not self._suspicion.is_left:
            return self._session.run(map(self._noted, flows))
        return lockstep.run(self, flows)

    def close(self) -> None:
        """Give memory back."""
        self._session.close()
        self._suspicion.close()

    def _in_groups(
        self,
        asked: Sequence[Asked],
        digests: Sequence[str],
        answer: Callable[[Sequence[Asked]], list[Answer]],
        guilty: Answer,
    ) -> list[Answer]:
        done = {place: guilty for place, one in enumerate(digests) if one in self._suspicion.guilty}
        for group in self._groups([p for p in range(len(asked)) if p not in done], digests):
            for place in group:
                self._suspicion.begin(digests[place])
            done |= zip(group, answer([asked[place] for place in group]), strict=True)
            for place in group:
                self._suspicion.end(digests[place])
        return [done[place] for place in range(len(asked))]

    def _groups(self, places: Sequence[int], digests: Sequence[str]) -> list[list[int]]:
        """Return what is asked together: all that nobody suspects, and suspects in small groups."""
        free, groups = [], []
        by_company: dict[int, list[int]] = {}
        for place in places:
            company = self._suspicion.company(digests[place])
            if company is None:
                free.append(place)
            else:
                by_company.setdefault(company, []).append(place)
        for company, suspects in sorted(by_company.items(), reverse=True):
            for first in range(0, len(suspects), company):
                groups.append(suspects[first : first + company])
        return [free, *groups] if free else groups

    def _noted(self, flow: Flow[Result]) -> Flow[Result]:
        """Pass a flow on; note what it has in hand, and fail what is known to be guilty."""
        reply: Reply = None
        while True:
            try:
                question = flow.send(reply)
            except StopIteration as end:
                result: Result = end.value
                return result
            digest = digest_of(question.request, self._model)
            if digest in self._suspicion.guilty:
                is_ask = isinstance(question, Ask)
                failed = Completion((), 0, 0, "error", GUILTY)
                reply = failed if is_ask else Likelihoods((), error=GUILTY)
                continue
            self._suspicion.begin(digest)
            reply = yield question
            self._suspicion.end(digest)


def suspicion_of(tools: Tools) -> Suspicion:
    """Return what this process, or part, knows of the requests to the models of its node."""
    part = f"-{tools.part.index}-of-{tools.part.count}" if tools.part else ""
    folder = tools.scratch / "isolation"
    folder.mkdir(exist_ok=True)
    return Suspicion(folder, f"requests{part}", has_crashed=tools.machine.has_crashed)


def digest_of(request: Request, model: str) -> str:
    """Return what names a request: whom it asks, its turns and images."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((model, request.turns, request.opens, request.is_raw)).encode())
    for image in request.images:
        digest.update(hashlib.blake2b(image, digest_size=12).digest())
    return digest.hexdigest()


def _in_hand(log: Path) -> set[str]:
    """Return what was asked and not answered; a torn last line was not asked yet."""
    if not log.exists():
        return set()
    counts: dict[str, int] = {}
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    for line in lines:
        counts[line[1:]] = counts.get(line[1:], 0) + (1 if line[:1] == "+" else -1)
    return {digest for digest, number in counts.items() if number > 0}
