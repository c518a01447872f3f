"""How stages open models: the chosen backend on the weights that the recipe or a parent named.

Loading waits for the first request, because a rerun may find every answer in its journal. A model
that answers nothing at all stops the stage before its journal is written, so a rerun asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from engine import plugin
from engine.artifacts import Artifact
from engine.backends import Completion, ModelFiles, Request, Sampling, Session
from engine.diagnostics import StageError
from engine.filters import Ask, TextModel
from engine.plan.stage import Tools
from engine.plugin import ModelUse
from engine.records import user

MODEL_FOLDER = "model"
SURELY_BROKEN = 16  # requests that fail in a row from the first on; fewer may be bad rows


def open_session(use: ModelUse, tools: Tools, model_artifact: Artifact | None = None) -> Session:
    """Load a model now; `model_artifact` holds the weights when an earlier stage trained them."""
    backend = plugin.load("backends", use.backend.name)
    settings = plugin.settings_of("backends", use.backend)
    session: Session = backend.open(_files(use, tools, model_artifact), settings, tools.machine)
    return session


def lazy_session(
    use: ModelUse, tools: Tools, model_artifact: Artifact | None = None
) -> LazySession:
    """Return a session that loads its model at the first request; use it as a context manager."""
    return LazySession(lambda: open_session(use, tools, model_artifact))


class LazySession:
    """A session that is opened when it is first asked, and closed at the end of its `with`."""

    def __init__(self, open_now: Callable[[], Session]) -> None:
        self._open_now = open_now
        self._session: Session | None = None
        self._has_answered = False

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order. Raise StageError if the model answers none."""
        if self._session is None:
            self._session = self._open_now()
        done = self._session.generate(requests, sampling)
        self._has_answered |= any(completion.finish != "error" for completion in done)
        if not self._has_answered and len(done) >= SURELY_BROKEN:
            raise StageError(
                f"the first {len(done)} requests all failed; the first of them: {done[0].error}",
                hint="nothing was kept: mend the cause and run again",
            )
        return done

    def close(self) -> None:
        """Give memory back."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> LazySession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def text_model(session: Session, seed: int) -> TextModel:
    """Return a session as filters see it: texts in, texts out."""

    def answer(texts: Sequence[str], ask: Ask) -> list[str | None]:
        requests = [Request((user(text),), is_raw=ask.is_raw) for text in texts]
        done = session.generate(requests, Sampling(ask.max_new_tokens, seed=seed))
        return [None if d.finish == "error" else d.text for d in done]

    return answer


def _files(use: ModelUse, tools: Tools, artifact: Artifact | None) -> ModelFiles:
    if artifact is not None:
        return ModelFiles(str(artifact.file(MODEL_FOLDER)), None, use.trust_remote_code)
    return ModelFiles(tools.locate_model(use.model), use.revision, use.trust_remote_code)
