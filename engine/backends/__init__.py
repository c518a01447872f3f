"""Backends: what runs a model. One file per engine; each exports `PLUGIN`.

Every backend renders the same chat template, decodes greedily unless told otherwise, and reports a
failed request as its own completion: one bad image never costs its neighbours (a peer loses the
whole chunk of 500).

Work is given as *flows*: a flow is a generator that asks, reads the reply, and may ask again, until
it returns its result. Many flows run side by side, so an engine that batches continuously is never
left waiting for the slowest of a chunk, however many questions one row needs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from engine.plan.stage import Machine
from engine.records import Turn

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to continue. Image parts of the turns index into `images` (encoded bytes)."""

    turns: tuple[Turn, ...]
    images: tuple[bytes, ...] = ()
    opens: str = "assistant"  # the role that the model writes next; "user": it asks by itself
    is_raw: bool = False  # the text of the only turn is the whole prompt: a base LLM, no template


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. Temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    json_schema: str | None = None  # the answer must be a JSON document of this schema (its text)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote, cut into turns at the template's markers.

    A request that opens "assistant" gives one assistant turn. One that opens "user" gives all
    complete turns that follow; an unfinished last turn is dropped and `finish` is "length".
    """

    turns: tuple[Turn, ...]
    num_prompt_tokens: int
    num_new_tokens: int
    finish: str  # stop, length or error
    error: str | None = None
    raw: str = ""  # all that was written, markers included

    @property
    def text(self) -> str:
        """The text of the first turn, or "" when there is none."""
        return self.turns[0].text if self.turns else ""


@dataclass(frozen=True, slots=True)
class Choices:
    """A request with a few possible answers, of which each one's likelihood is wanted.

    A choice stands for all texts that begin with its first token, so the first tokens of the
    choices must differ. One pass over the prompt gives all of them; nothing is written.
    """

    request: Request
    choices: tuple[str, ...]  # as they follow the prompt, for example " Yes" after a raw prompt


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Natural log-probability of each choice over the whole vocabulary, in their order.

    An engine that tells only its likeliest tokens gives -inf for a choice that is not among them.
    """

    log_probs: tuple[float, ...]
    num_prompt_tokens: int = 0
    error: str | None = None  # then there are no log_probs


@dataclass(frozen=True, slots=True)
class Ask:
    """A request and how to decode; the reply is a Completion."""

    request: Request
    sampling: Sampling


Question = Ask | Choices
Reply = Any  # a Completion for an Ask, Likelihoods for Choices
Flow = Generator[Question, Reply, Result]


class Session(Protocol):
    """A loaded model."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        """Return how likely the choices of each request are, in their order."""

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows side by side; yield each one's number and result when it ends, in any order.

        `flows` is read as far ahead as keeps the engine busy, and no further.
        """

    def close(self) -> None:
        """Give memory back."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Which model to open, already located."""

    path: str  # folder, or hub id
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None  # folder or hub id of a LoRA adapter on top of it
    adapter_revision: str | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """A model runner. `python_setting` names the machine setting for its interpreter, if any."""

    version: int
    params: type
    open: Callable[[ModelFiles, Any, Machine], Session]
    # Whether flows of many shards at once keep it busier. Otherwise they are run shard by shard, so
    # that batches, and with them the last bits, depend on the shard alone.
    is_continuous: bool = False
