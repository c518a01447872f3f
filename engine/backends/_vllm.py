"""The session of the backend `vllm`: flows in, answers out, nobody waits for anybody.

Three do their own part: the caller's thread runs the flows, one thread writes and renders prompts
(templates, tokens, images), and the engine's loop hands them on. As many questions are in hand as
keep the engine busy, and no more; one that a flow asks after another goes before those that wait.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engine.backends import (
    Ask,
    Choices,
    Completion,
    Flow,
    Likelihoods,
    Question,
    Reply,
    Request,
    Result,
    Sampling,
)
from engine.backends._talk import Talk, failed
from engine.backends._vllm_adapter import check
from engine.backends._vllm_engine import Engine, as_died
from engine.backends._vllm_prompts import Desk, RefusedError, is_failure
from engine.models._loading import ModelKit

GIVEN_UP = "vLLM gave this request up twice; its own log says why"


class VllmSession(Talk):
    """An engine in memory."""

    def __init__(self, kit: ModelKit, engine: Engine) -> None:
        super().__init__(kit, engine.declared_eos)
        self._engine = engine
        self._context_tokens = engine.max_tokens
        self._desk = Desk(self, engine)
        self.num_prompt_tokens = 0  # of all answered
        self.num_cached_tokens = 0  # of those, found in the cache of shared beginnings

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""
        return self._all([Ask(request, sampling) for request in requests])

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        """Return how likely the choices of each request are, in their order."""
        return self._all(asked)

    def _all(self, questions: Sequence[Question]) -> list[Any]:
        replies = dict(self.run(map(_once, questions)))
        return [replies[number] for number in range(len(questions))]

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows side by side; yield each one's number and result when it ends."""
        waiting = enumerate(flows)
        running: dict[int, Flow[Result]] = {}
        answered: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        try:
            while True:
                if self._engine.max_in_hand - len(running) >= self._engine.refill:
                    yield from self._start(waiting, running, answered)
                if not running:
                    return
                number, reply = answered.get()
                yield from self._go_on(number, running, self._read(reply), answered)
        finally:
            if running:  # the caller wants no more, or something broke
                self._desk.drop_all()
                self._engine.drop_all()

    def _start(
        self,
        waiting: Iterator[tuple[int, Flow[Result]]],
        running: dict[int, Flow[Result]],
        answered: queue.SimpleQueue[tuple[int, Any]],
    ) -> Iterator[tuple[int, Result]]:
        """Start flows until the engine has enough in hand."""
        while len(running) < self._engine.max_in_hand and (new := next(waiting, None)):
            number, flow = new
            running[number] = flow
            yield from self._go_on(number, running, None, answered)

    def _go_on(
        self,
        number: int,
        running: dict[int, Flow[Result]],
        reply: Reply,
        answered: queue.SimpleQueue[tuple[int, Any]],
    ) -> Iterator[tuple[int, Result]]:
        """Let a flow ask its next question, or yield its result."""
        try:
            question = running[number].send(reply)
        except StopIteration as end:
            del running[number]
            yield number, end.value
            return
        self._desk.put(question, lambda one: answered.put((number, one)), is_new=reply is None)

    def _read(self, answer: Any) -> Reply:
        """Return the reply to a question. Raise EngineDiedError if the engine is no more."""
        if isinstance(answer, Exception):
            raise answer
        asked, output = answer
        if isinstance(output, RefusedError):
            return _refusal(asked.question, str(output))
        if isinstance(output, Exception):
            return self._failure(asked.question, output)
        if is_failure(output):
            return _refusal(asked.question, GIVEN_UP)
        self.num_prompt_tokens += len(asked.prompt.ids)
        self.num_cached_tokens += output.num_cached_tokens or 0
        if isinstance(asked.question, Ask):
            written = list(output.outputs[0].token_ids)
            return self._completion(asked.prompt, written, asked.ending)
        told = output.outputs[0].logprobs[0]
        found = tuple(told[i].logprob if i in told else -math.inf for i in asked.choice_ids)
        return Likelihoods(found, len(asked.prompt.ids))

    def _failure(self, question: Question, error: Exception) -> Reply:
        from vllm.exceptions import VLLMClientError

        if isinstance(error, VLLMClientError | ValueError) and not self._engine.core.errored:
            return _refusal(question, str(error).splitlines()[0] if str(error) else "refused")
        raise as_died(error)

    def check_adapter(self) -> None:
        """Raise StageError if there is an adapter that vLLM does not apply, whole."""
        adapter = self._engine.adapter
        if adapter is None:
            return
        ignored = self._engine.load_adapter()
        prepared = self._desk.probe()
        with_it = self._engine.ask_now(prepared.rendered, prepared.rules)
        without = self._engine.ask_now(prepared.rendered, prepared.rules, uses_adapter=False)
        has_effect = _told(with_it) != _told(without)
        check(adapter, ignored, has_effect)

    def close(self) -> None:
        """Give memory back."""
        self._desk.close()
        self._engine.close()


def _once(question: Question) -> Flow[Reply]:
    reply = yield question
    return reply


def _refusal(question: Question, reason: str) -> Reply:
    if isinstance(question, Ask):
        return failed(reason)
    return Likelihoods((), error=reason)


def _told(output: Any) -> dict[int, float]:
    """Return the log-probabilities of the likeliest tokens."""
    return {token: one.logprob for token, one in output.outputs[0].logprobs[0].items()}
