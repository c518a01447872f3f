"""How filters put their questions to a model: as flows, in words that backends know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.backends import Ask, Choices, Completion, Flow, Likelihoods, Request, Sampling
from engine.filters import FLOOR, Asking, Question, Score, Write
from engine.images import ImageBank
from engine.records import ImagePart, Record, user
from engine.stages._models import drawn


def flow(ask: Callable[[Record], Asking], record: Record, bank: ImageBank, seed: int) -> Flow[Any]:
    """Ask about a record; return what was found out."""
    asking = ask(record)
    reply: Any = None
    while True:
        try:
            asked = asking.send(reply)
        except StopIteration as end:
            return end.value
        if isinstance(asked, Score):
            reply = yield from _scored(asked, bank)
        else:
            reply = yield from _written(asked, bank, seed)


def _scored(asked: Score, bank: ImageBank) -> Flow[tuple[float, ...] | None]:
    done: Likelihoods = yield Choices(_request(asked.question, bank), asked.choices)
    return None if done.error is not None else tuple(max(one, FLOOR) for one in done.log_probs)


def _written(asked: Write, bank: ImageBank, seed: int) -> Flow[str | None]:
    sampling = Sampling(asked.max_new_tokens, asked.temperature, drawn(seed, asked.draw))
    done: Completion = yield Ask(_request(asked.question, bank), sampling)
    return None if done.finish == "error" else done.text


def _request(question: Question, bank: ImageBank) -> Request:
    places = [ImagePart(number) for number in range(len(question.images))]
    images = tuple(bank.encoded(digest) for digest in question.images)
    return Request((user(*places, question.text),), images, is_raw=question.is_raw)
