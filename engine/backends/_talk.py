"""What every backend does alike: writes prompts, knows where an answer ends, cuts it into turns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.backends import Choices, Completion, Request, Sampling
from engine.images import ImageError
from engine.models._chat import ChatError
from engine.models._inputs import InputMaker
from engine.models._loading import ModelKit
from engine.records import Turn, assistant, user

TAIL_CHARS = 64  # of a prompt, enough to see how it joins with what follows


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as the model sees it."""

    request: Request
    text: str
    digests: tuple[str, ...]
    ids: Any  # numpy


@dataclass(frozen=True, slots=True)
class Ending:
    """When the model has finished: at one of these tokens, or after this run of tokens."""

    token_ids: tuple[int, ...]
    run: tuple[int, ...] = ()


class Talk:
    """The prompts and endings of one opened model; a session adds the engine that writes."""

    def __init__(self, kit: ModelKit, declared_eos: Any) -> None:
        self._kit = kit
        self._encoded: dict[str, bytes] = {}
        self._inputs = InputMaker(kit, lambda digest: self._encoded[digest], 2**29)
        self._eos_ids = eos_ids(kit, declared_eos)
        self._context_tokens = kit.context_tokens

    @property
    def context_tokens(self) -> int:
        """Return how many tokens a prompt and its answer may take together."""
        return self._context_tokens

    def _prompts(
        self, requests: Sequence[Request], sampling: Sampling, done: dict[int, Completion]
    ) -> dict[int, Prompt]:
        """Write and tokenise prompts; a request that cannot be asked is put into `done`."""
        texts: dict[int, tuple[str, tuple[str, ...]]] = {}
        for number, request in enumerate(requests):
            try:
                texts[number] = self._text(request)
            except (ChatError, ImageError) as error:
                done[number] = failed(str(error))
        tokens = self._inputs.tokenize([text for text, _ in texts.values()])
        prompts = {}
        for (number, (text, digests)), row in zip(texts.items(), tokens, strict=True):
            needed = len(row.ids) + sampling.max_new_tokens
            if needed > self._context_tokens:
                limit = self._context_tokens
                done[number] = failed(f"needs {needed} tokens, the model holds {limit}")
            else:
                prompts[number] = Prompt(requests[number], text, digests, row.ids)
        return prompts

    def _text(self, request: Request) -> tuple[str, tuple[str, ...]]:
        if is_plain(request, self._kit):
            return "".join(turn.text for turn in request.turns), ()
        digests = tuple(hashlib.sha256(encoded).hexdigest() for encoded in request.images)
        self._encoded |= dict(zip(digests, request.images, strict=True))
        pieces = self._kit.chat.prompt(request.turns, request.opens)
        for digest in digests:
            self._inputs.size_of(digest)
        text, _ = self._inputs.text_of(pieces, digests)
        return text, digests

    def _ending(self, request: Request) -> Ending:
        if is_plain(request, self._kit):
            return Ending(self._eos_ids)
        tokenizer, chat = self._kit.tokenizer, self._kit.chat
        footer = chat.markers("assistant").footer.strip()
        footer_ids = tuple(tokenizer(footer, add_special_tokens=False)["input_ids"])
        if request.opens == "assistant":
            is_token = len(footer_ids) == 1 and footer_ids[0] in tokenizer.all_special_ids
            return Ending(tuple(dict.fromkeys(self._eos_ids + footer_ids * is_token)))
        run = tuple(tokenizer(chat.end_of_text(), add_special_tokens=False)["input_ids"])
        # End markers of turns must not stop a dialogue, though many models list them as an end.
        inside = {*footer_ids, tokenizer.eos_token_id} if footer_ids else set()
        return Ending(tuple(i for i in self._eos_ids if i not in inside), run)

    def _choice_ids(self, prompt: Prompt, choices: Choices) -> tuple[int, ...]:
        """Return the first token of each choice after a prompt. Raise ValueError if two share it.

        A choice is tokenised with the end of the prompt, because tokens may join across the border.
        """
        tokenizer = self._kit.tokenizer
        tail = prompt.text[-TAIL_CHARS:]
        before = tokenizer(tail, add_special_tokens=False)["input_ids"]
        found = []
        for choice in choices.choices:
            after = tokenizer(tail + choice, add_special_tokens=False)["input_ids"]
            if after[: len(before)] != before or len(after) == len(before):
                after = [*before, *tokenizer(choice, add_special_tokens=False)["input_ids"]]
            found.append(int(after[len(before)]))
        if len(set(found)) != len(found):
            raise ValueError(f"the choices {list(choices.choices)} begin with the same token")
        return tuple(found)

    def _completion(self, prompt: Prompt, written: list[int], ending: Ending) -> Completion:
        ids, is_stopped = cut(written, ending)
        request, tokenizer = prompt.request, self._kit.tokenizer
        num_new = len(ids) + is_stopped
        raw = str(tokenizer.decode(ids, skip_special_tokens=False))
        if request.opens == "assistant" or is_plain(request, self._kit):
            text = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
            turns: tuple[Turn, ...] = (assistant(text),)
        else:
            pairs, is_stopped = self._kit.chat.split(raw, request.opens)
            turns = tuple(user(t) if role == "user" else assistant(t) for role, t in pairs)
        finish = "stop" if is_stopped else "length"
        return Completion(turns, len(prompt.ids), num_new, finish, raw=raw)


def is_plain(request: Request, kit: ModelKit) -> bool:
    return request.is_raw or (not kit.chat.has_template and not request.images)


def failed(reason: str) -> Completion:
    return Completion((), 0, 0, "error", reason)


def eos_ids(kit: ModelKit, declared: Any) -> tuple[int, ...]:
    """Return every id that the checkpoint calls an end."""
    listed = declared if isinstance(declared, list) else [declared]
    ids = [*listed, kit.tokenizer.eos_token_id]
    return tuple(dict.fromkeys(int(i) for i in ids if i is not None))


def cut(written: list[int], ending: Ending) -> tuple[list[int], bool]:
    """Return the tokens before the end, and whether there is one; a run is kept for splitting."""
    for position, token in enumerate(written):
        if token in ending.token_ids:
            return written[:position], True
        stop = position + 1
        if ending.run and tuple(written[max(stop - len(ending.run), 0) : stop]) == ending.run:
            return written[:stop], True
    return written, False
