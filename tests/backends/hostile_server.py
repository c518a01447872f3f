"""A server on loopback that speaks the OpenAI protocol, and misbehaves when it is asked to.

The first word of the last message says how: `429*2` answers 429 twice and then well, `hang` never
answers. Every request is remembered with the time it came and how many were under way.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-key"


class Hostile(ThreadingHTTPServer):
    """The server; use it as a context manager."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, models: tuple[str, ...] = ("m",), answer_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = models
        self.answer_s = answer_s
        self.good_for = -1  # requests, and then it does what `then` says, whoever asks
        self.then = ""
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[tuple[float, str]] = []
        self.paths: list[str] = []
        self.tries: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Hostile:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hostile

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = _last_text(body)
        with server.lock:
            server.bodies.append(body)
            server.asked.append((time.monotonic(), text))
            server.paths.append(self.path)
            server.tries[text] += 1
            number = server.tries[text]
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            self._act(text, number, body)
        finally:
            with server.lock:
                server.under_way -= 1

    def _act(self, text: str, number: int, body: Mapping[str, Any]) -> None:
        what, _, times = text.split(" ")[0].partition("*")
        if times and number > int(times):
            what = "good"
        if 0 <= self.server.good_for < len(self.server.asked):
            what = self.server.then
        time.sleep(self.server.answer_s)
        good = _good(text, body)
        match what:
            case "429" | "500" | "503" | "400" | "401" | "404":
                said = {"error": {"message": f"no {what}, your key is {KEY}"}}
                self._send(int(what), said)
            case "later":
                self._send(429, {}, {"Retry-After": "0.3"})
            case "limit":
                rest = {
                    "x-ratelimit-remaining-requests": "0",
                    "x-ratelimit-reset-requests": "300ms",
                }
                self._send(200, good, rest)
            case "hang":
                time.sleep(1.5)
            case "truncated":
                self._send(200, good, cut=20)
            case "notjson":
                self._raw(200, b"<html>gateway</html>")
            case "form":
                self._send(200, {"choices": [{"message": ["x"]}]})
            case "empty":
                self._send(200, {"choices": []})
            case "filtered":
                self._send(200, _with(good, finish_reason="content_filter"))
            case "cut":
                self._send(200, _with(good, finish_reason="length"))
            case "half":
                self._send(200, _with(good, message={"content": "half a smile \ud83d"}))
            case "halferror":
                self._send(400, {"error": {"message": "half a smile \ud83d"}})
            case "nousage":
                self._send(200, {**good, "usage": {"prompt_tokens": None}})
            case "reset":
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
            case "drip":
                self._drip(good)
            case "nologprobs":
                self._send(200, _with(good, logprobs=None))
            case "newlimit" if "max_tokens" in body:
                self._send(400, {"error": {"message": "use 'max_completion_tokens' instead"}})
            case _:
                self._send(200, good)

    def _drip(self, good: Mapping[str, Any]) -> None:
        content = json.dumps(good).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for place in range(0, len(content), 40):
            self.wfile.write(content[place : place + 40])
            self.wfile.flush()
            time.sleep(0.02)

    def _send(
        self,
        status: int,
        value: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self._raw(status, json.dumps(value).encode()[:cut], headers)

    def _raw(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        with suppress(OSError):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)


def _last_text(body: Mapping[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _good(text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    likely = {" Yes": -0.1, "Y": -5.0, " No": -2.5, "x": -3.0}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    if "prompt" in body:
        choice = {"text": f"said {text}", "logprobs": {"top_logprobs": [likely]}}
    else:
        told = [{"token": token, "logprob": value} for token, value in likely.items()]
        choice = {
            "message": {"role": "assistant", "content": f" said {text} "},
            "logprobs": {"content": [{"token": " Yes", "top_logprobs": told}]},
        }
    return {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage}


def _with(good: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**good, "choices": [{**good["choices"][0], **changes}]}
