"""Runs a stand-in model: the real prompts through a real forward pass, and canned answers.

Random weights write noise, and nothing after the generator would ever see a row. So each request is
rendered, tokenised and read as by `transformers`, its length is checked against the context with
all tokens that it may write, and then it is answered in the form that was asked for: a dialogue, a
JSON document, a label, yes or no. Without a form, every metric would find nothing to count.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from engine.backends import (
    Backend,
    Choices,
    Completion,
    Flow,
    Likelihoods,
    ModelFiles,
    Request,
    Result,
    Sampling,
    Session,
    _lockstep,
)
from engine.plan.stage import Machine
from engine.records import assistant, user

MOST_NEW = 8  # tokens that are really written
LIKELY, UNLIKELY = -0.1, -4.0
NUMBER = "{n}"
_OPTION = re.compile(r"(?:^|[\s(])([A-E])[.):]", re.M)
_COUNT = re.compile(r"\bhow many\b", re.I)
_CLOSED = re.compile(r"(?:^|[.?!]\s+)(?:is|are|was|were|does|do|did|has|have|can)\b", re.I | re.M)
_PLAIN = ("The field on the left.", "tissue", "plate, roof", "The lesion lies beside the river.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What a tuned synthesizer is taken to write."""

    dialogue: Annotated[
        tuple[str, ...],
        "Texts of the user's and the assistant's turns, in turns; `{n}` stands for a number that "
        "differs from request to request.",
    ] = ()


class StandInSession:
    """A session of `transformers`, whose answers are put into form."""

    def __init__(self, inner: Any, dialogue: Sequence[str]) -> None:
        self._inner = inner
        self._dialogue = dialogue

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""
        few = replace(
            sampling, max_new_tokens=min(sampling.max_new_tokens, MOST_NEW), json_schema=None
        )
        done = self._inner.generate(requests, few)
        return [
            self._formed(request, one, sampling)
            for request, one in zip(requests, done, strict=True)
        ]

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        """Return made-up likelihoods: the first choice is the likeliest three times of four."""
        done = self._inner.score(asked)
        return [
            _scored(choices, one) if one.error is None else one
            for choices, one in zip(asked, done, strict=True)
        ]

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows in rounds; yield each one's number and result when it ends."""
        return _lockstep.run(self, flows)

    def close(self) -> None:
        """Give memory back."""
        self._inner.close()

    def _formed(self, request: Request, done: Completion, sampling: Sampling) -> Completion:
        if done.error is not None:
            return done
        needed = done.num_prompt_tokens + sampling.max_new_tokens
        limit = self._inner.context_tokens
        if needed > limit:
            reason = f"needs {needed} tokens, the model holds {limit}"
            return Completion((), 0, 0, "error", reason)
        if request.opens == "user":
            number = str(_number(request) % 997)
            texts = [text.replace(NUMBER, number) for text in self._dialogue]
            turns = tuple(
                (assistant if place % 2 else user)(text) for place, text in enumerate(texts)
            )
            return replace(done, turns=turns, finish="stop", raw="\n".join(texts))
        if sampling.json_schema is not None:
            text = json.dumps(example(json.loads(sampling.json_schema), _number(request)))
            return replace(done, turns=(assistant(text),), finish="stop", raw=text)
        return replace(done, turns=(assistant(plain(request, done.text)),), finish="stop")


def plain(request: Request, written: str) -> str:
    """Return an answer in the form that a question asks for; of four, one is what was written.

    It differs from model to model, as what they write does.
    """
    question = request.turns[-1].text if request.turns else ""
    number = int.from_bytes(hashlib.sha256(f"{question}/{written}".encode()).digest()[:4], "big")
    if number % 4 == 0:
        return written
    if options := _OPTION.findall(question):
        return str(options[number % len(options)])
    if _COUNT.search(question):
        return str(number % 5)
    return ("Yes", "No")[number % 2] if _CLOSED.search(question) else _PLAIN[number % len(_PLAIN)]


def example(schema: Mapping[str, Any], number: int) -> Any:
    """Return a small document of a schema; texts hold a number, so that two of them differ."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "object":
        return {name: example(one, number) for name, one in schema["properties"].items()}
    if kind == "array":
        count = max(int(schema.get("minItems", 1)), 1)
        return [example(schema["items"], number + place) for place in range(count)]
    if kind == "boolean":
        return True
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return f"What lies beside mark {number % 997}?"


def _scored(asked: Choices, done: Likelihoods) -> Likelihoods:
    best = 0 if _number(asked.request) % 4 else len(asked.choices) - 1
    values = [LIKELY if place == best else UNLIKELY for place in range(len(asked.choices))]
    return replace(done, log_probs=tuple(values))


def _number(request: Request) -> int:
    """Return a number that names a request: equal for equal ones."""
    name = hashlib.sha256("\n".join(turn.text for turn in request.turns).encode())
    for image in request.images:
        name.update(hashlib.sha256(image).digest())
    return int.from_bytes(name.digest()[:4], "big")


def open_session(files: ModelFiles, params: Params, machine: Machine) -> Session:
    """Load a model with `transformers`."""
    from engine.backends import transformers

    inner = transformers.PLUGIN.open(files, transformers.Params(), machine)
    return StandInSession(inner, params.dialogue)


PLUGIN = Backend(version=1, params=Params, open=open_session)
