"""Backends: what runs a model. One file per engine (transformers, vllm); each exports `PLUGIN`.

Every backend renders the same chat template, decodes greedily unless told otherwise, and reports a
failed request as its own completion: one bad image never costs its neighbours (a peer loses the
whole chunk of 500).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.plan.stage import Machine
from engine.records import Turn


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

    @property
    def text(self) -> str:
        """The text of the first turn, or "" when there is none."""
        return self.turns[0].text if self.turns else ""


class Session(Protocol):
    """A loaded model."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""

    def close(self) -> None:
        """Give memory back."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Which model to open, already located."""

    path: str  # folder, or hub id
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """A model runner. `python_setting` names the machine setting for its interpreter, if any."""

    version: int
    params: type
    open: Callable[[ModelFiles, Any, Machine], Session]
