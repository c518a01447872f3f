"""Runs flows in rounds, for an engine that answers lists: all ask, all are answered, all go on.

Questions of a round are put together by what decides how they are answered, in the order of their
flows, so that the same flows always make the same batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

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


class Answers(Protocol):
    """What rounds need of a session."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        """Return how likely the choices of each request are, in their order."""


def run(session: Answers, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
    """Run flows round by round; yield each one's number and result in the round it ends."""
    running = dict(enumerate(flows))
    replies: dict[int, Reply] = dict.fromkeys(running)  # the first reply opens a flow
    while running:
        asked: dict[int, Question] = {}
        for number, flow in list(running.items()):
            try:
                asked[number] = flow.send(replies[number])
            except StopIteration as end:
                del running[number]
                yield number, end.value
        replies = _answered(session, asked)


def _answered(session: Answers, asked: dict[int, Question]) -> dict[int, Reply]:
    by_sampling: dict[Sampling, list[int]] = {}
    scored = []
    for number, question in asked.items():
        if isinstance(question, Ask):
            by_sampling.setdefault(question.sampling, []).append(number)
        else:
            scored.append(number)
    replies: dict[int, Reply] = {}
    for sampling, numbers in by_sampling.items():
        requests = [question.request for n in numbers if isinstance(question := asked[n], Ask)]
        replies |= zip(numbers, session.generate(requests, sampling), strict=True)
    if scored:
        choices = [question for n in scored if isinstance(question := asked[n], Choices)]
        replies |= zip(scored, session.score(choices), strict=True)
    return replies
