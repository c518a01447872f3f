"""How stages open models: the chosen backend on the weights that the recipe or a parent named.

Loading waits for the first request, because a rerun may find every answer in its journal. A model
that answers nothing at all stops the stage before its journal is written, so a rerun asks again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import chain
from types import TracebackType
from typing import Self

from engine import plugin
from engine.artifacts import Artifact
from engine.backends import Flow, ModelFiles, Result, Session
from engine.diagnostics import StageError
from engine.plan.stage import Tools
from engine.plugin import ModelUse
from engine.stages._isolation import Isolated, Suspicion, suspicion_of

MODEL_FOLDER = "model"
SURELY_BROKEN = 16  # requests that fail in a row from the first on; fewer may be bad rows


def open_session(use: ModelUse, tools: Tools, model_artifact: Artifact | None = None) -> Session:
    """Load a model now; `model_artifact` holds the weights when an earlier stage trained them."""
    backend = plugin.load("backends", use.backend.name)
    settings = plugin.settings_of("backends", use.backend)
    session: Session = backend.open(_files(use, tools, model_artifact), settings, tools.machine)
    return session


def lazy_session(
    use: ModelUse,
    tools: Tools,
    model_artifact: Artifact | None = None,
    suspicion: Suspicion | None = None,
) -> LazySession:
    """Return a session that loads its model at the first request; use it as a context manager.

    A request that crashes its engine is found and failed, by the processes that follow this one.
    Where a node asks several models they need one `suspicion`: a crash was of any of them.
    """
    backend = plugin.load("backends", use.backend.name)
    known = suspicion or suspicion_of(tools)

    def open_now() -> Session:
        session = open_session(use, tools, model_artifact)
        return Isolated(session, known, _name_of(use), is_continuous=backend.is_continuous)

    return LazySession(open_now, lambda: backend.is_continuous and not known.is_left)


class Models(ExitStack):
    """The models that filters ask: equal ones are one, and only one at a time is in memory.

    An engine may take a whole device; two judges of one node would not fit, nor one judge twice.
    """

    def __init__(self, open_lazily: Callable[[ModelUse], LazySession]) -> None:
        super().__init__()
        self._open_lazily = open_lazily
        self._sessions: dict[str, LazySession] = {}

    @classmethod
    def of(cls, tools: Tools) -> Self:
        """Return the models of a node."""
        suspicion = cache(lambda: suspicion_of(tools))
        return cls(lambda use: lazy_session(use, tools, suspicion=suspicion()))

    def get(self, use: ModelUse) -> LazySession:
        """Return the session of a model; the others give their memory back when it is loaded."""
        name = _name_of(use)
        if name not in self._sessions:
            self._sessions[name] = self.enter_context(self._open_lazily(use))
            self._sessions[name].make_room = self._close_idle
        return self._sessions[name]

    def _close_idle(self) -> None:
        for session in self._sessions.values():
            if not session.is_busy:
                session.close()


def _name_of(use: ModelUse) -> str:
    """Return what tells the models of one node apart."""
    return hashlib.sha256(repr(use).encode()).hexdigest()[:16]


class LazySession:
    """A session that is opened when it is first asked, and closed at the end of its `with`."""

    def __init__(
        self, open_now: Callable[[], Session], is_continuous: Callable[[], bool] = lambda: False
    ) -> None:
        self._is_continuous = is_continuous
        self._open_now = open_now
        self._session: Session | None = None
        self._num_runs = 0
        self._num_asked = 0
        self._in_hand: set[int] = set()  # of those asked
        self._last_in_doubt = 0  # asked by the time so many had failed
        self.make_room: Callable[[], None] = _nothing  # called before the model is loaded
        self._has_answered = False
        self._failures: list[str] = []

    @property
    def is_continuous(self) -> bool:
        """Tell whether it wants flows of many shards at once, for now."""
        return self._is_continuous()

    @property
    def is_busy(self) -> bool:
        """Tell whether flows are running."""
        return self._num_runs > 0

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows side by side. Raise StageError if the model answers none of the first."""
        waiting = iter(flows)
        first = next(waiting, None)
        if first is None:
            return iter(())  # nothing to ask: the model is not loaded
        return self._counted(self._opened().run(map(self._watched, chain([first], waiting))))

    def _counted(self, results: Iterator[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
        """Hand results on, once there was an answer: until then they may be nobody's fault."""
        self._num_runs += 1
        held = []
        try:
            for result in results:
                held.append(result)
                if self._has_answered:
                    yield from held
                    held.clear()
            yield from held
        finally:
            self._num_runs -= 1

    def _watched(self, flow: Flow[Result]) -> Flow[Result]:
        """Pass a flow on, and see whether its questions are answered."""
        reply = None
        while True:
            try:
                question = flow.send(reply)
            except StopIteration as end:
                result: Result = end.value
                return result
            self._num_asked += 1
            number = self._num_asked
            self._in_hand.add(number)
            reply = yield question
            self._in_hand.discard(number)
            self._note(reply.error)

    def _opened(self) -> Session:
        if self._session is None:
            self.make_room()
            self._session = self._open_now()
        return self._session

    def _note(self, error: str | None) -> None:
        """Count failures until the first answer. Raise StageError when they are too many.

        A refusal comes at once and an answer takes its time, so what is in hand is waited for.
        """
        self._has_answered |= error is None
        if self._has_answered or error is None:
            return
        self._failures.append(error)
        if len(self._failures) < SURELY_BROKEN:
            self._last_in_doubt = self._num_asked
        elif not any(number <= self._last_in_doubt for number in self._in_hand):
            raise StageError(
                f"the first {len(self._failures)} requests all failed; the first of them: "
                f"{self._failures[0]}",
                hint="nothing was kept: mend the cause and run again",
            )

    def close(self) -> None:
        """Give memory back."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _nothing() -> None:
    """Do nothing."""


def drawn(seed: int, draw: int) -> int:
    """Return the seed of the n-th sample of the same question; the first has the seed itself."""
    if draw == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}".encode()).digest()[:7], "big")


def _files(use: ModelUse, tools: Tools, artifact: Artifact | None) -> ModelFiles:
    path = tools.locate_model(use.model) if artifact is None else str(artifact.file(MODEL_FOLDER))
    adapter = use.adapter
    return ModelFiles(
        path,
        use.revision if artifact is None else None,
        use.trust_remote_code,
        None if adapter is None else tools.locate_model(adapter.model),
        None if adapter is None else adapter.revision,
    )
