"""One HTTP request as often as it takes: what may pass is tried again, after a pause with jitter.

Servers say how long to wait (`Retry-After`, `x-ratelimit-reset-*`); one that does makes all
requests wait, since they share the limit.

A request that fails as often as it may is to blame itself, or the server is down or its quota used
up. When nobody else was answered meanwhile, the last one that was answered is asked again, or a
plain greeting where none was yet, and tells which.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx2

from engine.diagnostics import StageError
from engine.records import as_unicode

PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
REFUSED = frozenset((401, 403))
LIMITS = ("max_tokens", "max_completion_tokens")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
LONGEST_WISH_S = 900.0  # of a server; longer ones are not waited for
SHOWN_CHARS = 300
_SPAN = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class RefusalError(Exception):
    """The server will not answer this one request, however often it is asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Tried(NamedTuple):
    """What came of a request."""

    answer: Mapping[str, Any] | None  # None: it failed as often as it may
    last: str  # trouble
    number: int  # of the last attempt, among all that were posted


@dataclass(slots=True)
class Poster:
    """Posts JSON and returns JSON that has the wanted form."""

    client: Any
    secret: str | None
    max_retries: int
    _not_before: float = 0.0  # of the loop's clock
    _num_posted: int = 0
    _latest_good: int = 0  # number of the one posted last of those that were answered
    _last_good: tuple[str, Mapping[str, Any], Callable[[Any], bool]] | None = None
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _jitter: random.Random = field(default_factory=random.Random)  # pauses only, never results

    async def post(
        self, path: str, body: Mapping[str, Any], is_good: Callable[[Any], bool]
    ) -> Mapping[str, Any]:
        """Return the server's answer.

        Raise RefusalError for a request that it cannot serve or that failed too often, and
        StageError if it refuses the key, or answers nobody any more.
        """
        tried = await self._try(path, body, is_good)
        if tried.answer is not None:
            return tried.answer
        failed = f"failed {self.max_retries + 1} times, at last with {tried.last}"
        async with self._probing:
            if self._latest_good < tried.number and not await self._answers(path, body, is_good):
                raise StageError(
                    f"the server answers nobody: a request {failed}",
                    hint="what is finished is kept; once it answers again, run again",
                    is_transient=True,
                )
        raise RefusalError(0, failed)

    async def _answers(
        self, path: str, body: Mapping[str, Any], is_good: Callable[[Any], bool]
    ) -> bool:
        """Tell whether the server answers a request that is not to blame, or refuses it alone."""
        path, body, is_good = self._last_good or (path, _greeting(body), is_good)
        short = {**body, **{name: 1 for name in LIMITS if name in body}}
        try:
            return (await self._try(path, short, is_good)).answer is not None
        except RefusalError:
            return True

    async def _try(
        self, path: str, body: Mapping[str, Any], is_good: Callable[[Any], bool]
    ) -> _Tried:
        last, number = "no attempt", 0
        for attempt in range(self.max_retries + 1):
            await self._wait()
            number = self._next()
            try:
                response = await self.client.post(path, json=body)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                last = f"{type(error).__name__}: {self._shown(str(error))}".rstrip(": ")
                await self._pause(attempt)
                continue
            self._heed(response.headers, response.status_code)
            if response.status_code == 200:
                found = _json(response.content)
                if isinstance(found, dict) and is_good(found):
                    self._latest_good = max(self._latest_good, number)
                    self._last_good = (path, body, is_good)
                    return _Tried(found, last, number)
                last = f"a broken answer: {self._shown(response.text)}"
            elif response.status_code in REFUSED:
                raise StageError(
                    f"the server refuses the request with status {response.status_code}: "
                    f"{self._message(response)}",
                    hint="is the variable with the key set, and the key good for this model?",
                )
            elif response.status_code not in PASSING:
                raise RefusalError(response.status_code, self._message(response))
            else:
                last = f"status {response.status_code}: {self._message(response)}"
            await self._pause(attempt)
        return _Tried(None, last, number)

    def _next(self) -> int:
        self._num_posted += 1
        return self._num_posted

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._not_before - loop.time()) > 0:
            await asyncio.sleep(left)

    async def _pause(self, attempt: int) -> None:
        if attempt < self.max_retries:
            longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt)
            await asyncio.sleep(longest * self._jitter.uniform(0.5, 1.0))

    def _heed(self, headers: Mapping[str, str], status: int) -> None:
        wish = wished_pause_s(headers, status, time.time())
        if wish is not None:
            until = asyncio.get_running_loop().time() + min(wish, LONGEST_WISH_S)
            self._not_before = max(self._not_before, until)

    def _message(self, response: Any) -> str:
        found = _json(response.content)
        error = found.get("error", found) if isinstance(found, Mapping) else None
        told = error.get("message") if isinstance(error, Mapping) else error
        return self._shown(str(told) if told else response.text)

    def _shown(self, text: str) -> str:
        if self.secret:
            text = text.replace(self.secret, "***")
        return as_unicode(" ".join(text.split())[:SHOWN_CHARS])


def _greeting(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request like another one that any model can answer."""
    said: dict[str, Any] = {"prompt": "Hello."}
    if "messages" in body:
        said = {"messages": [{"role": "user", "content": "Hello."}]}
    return {**{name: body[name] for name in ("model", *LIMITS) if name in body}, **said}


def wished_pause_s(headers: Mapping[str, str], status: int, now_s: float) -> float | None:
    """Return how long a server wants to be left alone, in seconds; None when it does not say.

    `now_s` is Unix time. Limits count only when nothing is left of them, or the server is busy.
    """
    is_busy = status in PASSING
    if is_busy and (wish := _after(headers.get("retry-after"), now_s)) is not None:
        return wish
    wishes = [
        _span_s(headers.get(f"x-ratelimit-reset-{what}"))
        for what in ("requests", "tokens")
        if is_busy or headers.get(f"x-ratelimit-remaining-{what}") == "0"
    ]
    return max((wish for wish in wishes if wish is not None), default=None)


def _after(text: str | None, now_s: float) -> float | None:
    """Read `Retry-After`: seconds, or a date."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except ValueError:
        return None


def _span_s(text: str | None) -> float | None:
    """Read `6m0s`, `20ms` or plain seconds."""
    if text is None:
        return None
    found = list(_SPAN.finditer(text))
    if found and "".join(one.group(0) for one in found) == text.strip():
        return sum(float(one["number"]) * _UNIT_S[one["unit"]] for one in found)
    try:
        return max(0.0, float(text))
    except ValueError:
        return None


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
