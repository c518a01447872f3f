"""The session of the backend `openai`: flows over HTTP, as many at once as the server may take."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

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
from engine.backends._http import Poster, RefusalError
from engine.diagnostics import StageError
from engine.models._loading import ModelKit
from engine.records import ImagePart, Turn, as_unicode, assistant, user

if TYPE_CHECKING:
    from engine.backends.openai import Params

NO_LOG_PROBS = "the server gives no log-probabilities; a judge needs them (vLLM's server has them)"
MILLION = 1_000_000
_KINDS = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, for which model."""

    url: str
    model: str
    key: str | None


class OpenAiSession:
    """A server that answers. All requests are made in this thread, by one event loop."""

    def __init__(self, server: Server, params: Params, kit: ModelKit | None) -> None:
        self._server = server
        self._params = params
        self._kit = kit
        self._limit_key = "max_tokens"
        self.num_tokens_in = self.num_tokens_out = 0
        self._loop = asyncio.new_event_loop()
        limit = params.max_concurrency
        self._client = httpx2.AsyncClient(
            base_url=server.url + "/",
            headers={"Authorization": f"Bearer {server.key}"} if server.key else {},
            timeout=httpx2.Timeout(params.timeout_s, pool=None),
            limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
        )
        self._poster = Poster(self._client, server.key, params.max_retries)

    def check(self, plain_name: str | None = None) -> None:
        """Raise StageError if the server has no such model.

        `plain_name` is the model below an adapter; an adapter must change what it says.
        """
        names = self._loop.run_until_complete(self._names())
        wanted = self._server.model
        if names is not None and wanted not in names:
            raise StageError(
                f"the server at {self._server.url} has no model `{wanted}`",
                hint=f"it has {', '.join(f'`{name}`' for name in sorted(names)[:8])}; "
                "`served_model` names one",
            )
        if plain_name is not None and names is not None and plain_name in names:
            self._refuse_silent_adapter(plain_name)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""
        done = dict(self.run(_once(Ask(request, sampling)) for request in requests))
        return [done[number] for number in range(len(requests))]

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        """Return how likely the choices of each request are, in their order."""
        done = dict(self.run(_once(choices) for choices in asked))
        return [done[number] for number in range(len(asked))]

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows side by side; yield each one's number and result when it ends."""
        waiting = enumerate(flows)
        under_way: dict[asyncio.Task[Reply], tuple[int, Flow[Result]]] = {}
        try:
            while True:
                while len(under_way) < self._params.max_concurrency and not self._is_spent():
                    started = next(waiting, None)
                    if started is None:
                        break
                    yield from self._go_on(*started, None, under_way)
                if not under_way:
                    break
                done, _ = self._loop.run_until_complete(
                    asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                )
                for task in done:
                    yield from self._go_on(*under_way.pop(task), task.result(), under_way)
        finally:
            self._cancel(under_way)
        if self._is_spent() and next(waiting, None) is not None:
            raise StageError(
                f"the budget is spent: {self.num_tokens_in:,} tokens read, "
                f"{self.num_tokens_out:,} written, cost {self._cost():.2f}",
                hint="what is finished is kept; raise `max_total_tokens` or `max_cost`, run again",
            )

    def close(self) -> None:
        """Close all connections."""
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()

    def _go_on(
        self,
        number: int,
        flow: Flow[Result],
        reply: Reply,
        under_way: dict[asyncio.Task[Reply], tuple[int, Flow[Result]]],
    ) -> Iterator[tuple[int, Result]]:
        """Give a flow its reply; ask what it asks next, or yield its result."""
        try:
            question = flow.send(reply)
        except StopIteration as end:
            yield number, end.value
        else:
            under_way[self._loop.create_task(self._reply(question))] = (number, flow)

    def _cancel(self, under_way: Mapping[asyncio.Task[Reply], Any]) -> None:
        for task in under_way:
            task.cancel()
        if under_way:
            self._loop.run_until_complete(asyncio.gather(*under_way, return_exceptions=True))

    async def _reply(self, question: Question) -> Reply:
        try:
            if isinstance(question, Ask):
                return await self._write(question.request, question.sampling)
            return await self._score(question)
        except RefusalError as refusal:
            if isinstance(question, Ask):
                return Completion((), 0, 0, "error", str(refusal))
            return Likelihoods((), error=str(refusal))

    async def _write(self, request: Request, sampling: Sampling) -> Completion:
        path, body = self._question(request)
        body |= self._sampling(request, sampling)
        if request.opens == "user":
            body |= self._whole_dialogue()
        found = await self._post(path, body, lambda answer: _text(answer) is not None)
        choice, text = found["choices"][0], _text(found) or ""
        read, written = self._count(found)
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        if choice.get("finish_reason") == "content_filter":
            return Completion((), read, written, "error", "the server's content filter", raw=text)
        turns: tuple[Turn, ...] = (assistant(text.strip()),)
        if request.opens == "user" and self._kit is not None:
            pairs, is_stopped = self._kit.chat.split(text, "user")
            turns = tuple(user(t) if role == "user" else assistant(t) for role, t in pairs)
            finish = "stop" if is_stopped else "length"
        return Completion(turns, read, written, finish, raw=text)

    async def _score(self, asked: Choices) -> Likelihoods:
        path, body = self._question(asked.request)
        body |= {self._limit_key: 1, "temperature": 0.0}
        if asked.request.is_raw:
            body["logprobs"] = self._params.top_logprobs
        else:
            body |= {"logprobs": True, "top_logprobs": self._params.top_logprobs}
        found = await self._post(path, body, lambda answer: _text(answer) is not None)
        likely = _first_token(found["choices"][0])
        if likely is None:
            return Likelihoods((), error=NO_LOG_PROBS)
        read, _ = self._count(found)
        return Likelihoods(log_probs_of(asked.choices, likely), read)

    def _question(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Return where to post a request, and what of the body does not say how to decode."""
        if request.is_raw:
            text = "".join(turn.text for turn in request.turns)
            return "completions", {"model": self._server.model, "prompt": text}
        words = self._kit.chat.words if self._kit is not None else str
        messages = [_message(turn, request.images, words) for turn in request.turns]
        if request.opens == "user":
            messages.append({"role": "user", "content": [{"type": "text", "text": ""}]})
        return "chat/completions", {"model": self._server.model, "messages": messages}

    def _sampling(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        rules: dict[str, Any] = {
            self._limit_key: sampling.max_new_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.temperature > 0:
            rules |= {"top_p": sampling.top_p, "seed": _seed(request, sampling.seed)}
        if sampling.json_schema is not None:
            schema = {"name": "answer", "schema": json.loads(sampling.json_schema), "strict": True}
            rules["response_format"] = {"type": "json_schema", "json_schema": schema}
        return rules

    def _whole_dialogue(self) -> dict[str, Any]:
        """Return what vLLM's server needs to let the model write user turns as well."""
        if self._kit is None:
            raise StageError(
                "the model is to write the user's turn itself, and the backend `openai` cannot "
                "tell its turns apart without the model's tokenizer",
                hint="set `tokenizer`, or use the backend `vllm` or `transformers`",
            )
        return {
            "add_generation_prompt": False,
            "continue_final_message": True,
            "ignore_eos": True,
            "stop": [self._kit.chat.end_of_text()],
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
        }

    async def _post(self, path: str, body: dict[str, Any], is_good: Any) -> Mapping[str, Any]:
        try:
            return await self._poster.post(path, body, is_good)
        except RefusalError as refusal:
            # Newer hosted models know the limit by its second name only.
            if refusal.status != 400 or "max_completion_tokens" not in str(refusal):
                raise
            self._limit_key = "max_completion_tokens"
            if "max_tokens" not in body:
                raise
        body = {**body, self._limit_key: body["max_tokens"]}
        del body["max_tokens"]
        return await self._poster.post(path, body, is_good)

    def _count(self, found: Mapping[str, Any]) -> tuple[int, int]:
        usage = found.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        read, written = (_number(usage.get(f"{w}_tokens")) for w in ("prompt", "completion"))
        self.num_tokens_in += read
        self.num_tokens_out += written
        return read, written

    def _cost(self) -> float:
        params = self._params
        spent = self.num_tokens_in * params.price_in + self.num_tokens_out * params.price_out
        return spent / MILLION

    def _is_spent(self) -> bool:
        params, total = self._params, self.num_tokens_in + self.num_tokens_out
        if params.max_total_tokens is not None and total >= params.max_total_tokens:
            return True
        return params.max_cost is not None and self._cost() >= params.max_cost > 0

    async def _names(self) -> set[str] | None:
        """Return the models that the server lists; None where it does not say."""
        for attempt in range(self._params.max_retries + 1):
            try:
                response = await self._client.get("models")
            except httpx2.TransportError as error:
                if attempt == self._params.max_retries:
                    raise StageError(
                        f"the server at {self._server.url} cannot be reached: "
                        f"{type(error).__name__}",
                        hint="is it running, and is `base_url` or OPENAI_BASE_URL right?",
                        is_transient=True,
                    ) from error
                await asyncio.sleep(min(0.2 * 2.0**attempt, 5.0))
                continue
            return _listed(response)
        return None

    def _refuse_silent_adapter(self, plain_name: str) -> None:
        probe = Choices(Request((user("Hello."),)), ("Yes", "No"))
        (with_adapter,) = self.score([probe])
        below = OpenAiSession(
            Server(self._server.url, plain_name, self._server.key), self._params, self._kit
        )
        try:
            (without,) = below.score([probe])
        finally:
            below.close()
        if with_adapter.error is None and with_adapter.log_probs == without.log_probs:
            raise StageError(
                f"the adapter `{self._server.model}` changes nothing: the server answers as "
                f"`{plain_name}` does, to the last bit",
                hint="was it made for this model, and do its modules fit?",
            )


def _once(question: Question) -> Flow[Any]:
    reply = yield question
    return reply


def _message(turn: Turn, images: Sequence[bytes], words: Callable[[str], str]) -> dict[str, Any]:
    """Return a turn as the protocol has it; texts and images keep their order.

    A server reads control tokens in a text as such: `words` takes care of them.
    """
    if not any(isinstance(part, ImagePart) for part in turn.parts):
        return {"role": turn.role, "content": words(turn.text)}
    content = [
        {"type": "image_url", "image_url": {"url": data_uri(images[part.index])}}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": words(part.text)}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": content}


def data_uri(image: bytes) -> str:
    """Return encoded image bytes as a URI; what they are is told by how they begin."""
    kind = next((kind for start, kind in _KINDS if image.startswith(start)), "image/png")
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


def log_probs_of(choices: Sequence[str], likely: Mapping[str, float]) -> tuple[float, ...]:
    """Return the log-probability of each choice, from those of the likeliest tokens.

    A token counts for the only choice that it begins, spaces aside; of several the likeliest.
    """
    found = [-math.inf] * len(choices)
    for token, log_prob in likely.items():
        bare = token.replace("\u2581", " ").strip()
        fits = [n for n, choice in enumerate(choices) if bare and choice.strip().startswith(bare)]
        if len(fits) == 1:
            found[fits[0]] = max(found[fits[0]], log_prob)
    return tuple(found)


def _first_token(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the likeliest first tokens of either kind of answer; None where it has none."""
    try:
        told = choice["logprobs"]
        if told.get("top_logprobs"):
            return {str(token): float(value) for token, value in told["top_logprobs"][0].items()}
        first = told["content"][0]["top_logprobs"]
        return {str(one["token"]): float(one["logprob"]) for one in first} or None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def _text(answer: Any) -> str | None:
    """Return what an answer says; None for one of another form."""
    try:
        choice = answer["choices"][0]
        said = choice["text"] if "text" in choice else choice["message"].get("content") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    return as_unicode(said) if isinstance(said, str) else None


def _listed(response: Any) -> set[str] | None:
    if response.status_code in (401, 403):
        raise StageError(
            f"the server refuses the key with status {response.status_code}",
            hint="is the variable with the key set, and the key good?",
        )
    try:
        return {str(one["id"]) for one in response.json()["data"]} or None
    except (ValueError, KeyError, TypeError):
        return None


def _seed(request: Request, seed: int) -> int:
    """Return a seed of the request's own, the same whenever it is asked."""
    texts = "/".join(f"{turn.role}:{turn.text}" for turn in request.turns)
    return int.from_bytes(hashlib.sha256(f"{seed}/{texts}".encode()).digest()[:4], "big") >> 1


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
