"""The local server of `adapt review`: one page, its pictures, and answers that are kept at once.

Only this machine reaches it, and only who knows the token: it is the first part of every path. A
foreign site that a browser has open can neither guess it nor pretend to be this server, because the
name that a request asks for is checked as well (DNS rebinding). No part of a request names a file.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from engine.cli.review_sitting import RefusedError, Review
from engine.rendering import review_page
from engine.runtime.locks import BEAT_S, KeyLock

HOST = "127.0.0.1"
MAX_BODY = 4096
WAIT_S = 30.0  # for a client that says nothing


class Server(ThreadingHTTPServer):
    """Listens on this machine alone. Raise OSError when the port is taken."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, review: Review, lock: KeyLock, port: int = 0) -> None:
        self.review = review
        self.token = secrets.token_urlsafe(24)
        self._key_lock = lock
        self._touched_at = time.monotonic()
        super().__init__((HOST, port), Handler)

    @property
    def origin(self) -> str:
        """Return where it is, without the token."""
        return f"http://{HOST}:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Return the address of the page."""
        return f"{self.origin}/{self.token}/"

    def service_actions(self) -> None:
        """Show, now and then, that the holder of the session is alive."""
        if time.monotonic() - self._touched_at > BEAT_S:
            self._touched_at = time.monotonic()
            self._key_lock.touch()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "adapt"
    sys_version = ""
    timeout = WAIT_S

    def do_GET(self) -> None:  # the name that http.server looks for
        """Answer with the page, its data, or a picture."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Keep an answer."""
        self._answer(self._post)

    def _answer(self, work: Callable[[str], None]) -> None:
        try:
            work(self._checked_path())
        except RefusedError as error:
            # What was not read of a body must not be taken for the next request.
            self.close_connection = True
            self._send_json({"error": str(error)}, error.status)
        except (ConnectionError, TimeoutError):  # the browser went away
            raise
        except OSError as error:  # a full disk
            self.close_connection = True
            message = f"the answer could not be kept: {error.strerror or error}"
            self._send_json({"error": message}, HTTPStatus.INSUFFICIENT_STORAGE)

    def _checked_path(self) -> str:
        """Return the part of the path after the token; refuse who should not be here."""
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server answers to its own name only")
        token, _, rest = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise RefusedError(HTTPStatus.FORBIDDEN, "the address lacks the token that was printed")
        return rest

    def _get(self, name: str) -> None:
        if name == "":
            self._send(review_page.html().encode(), "text/html; charset=utf-8")
        elif name == "start":
            self._send_json(self.server.review.start())
        elif name == "icon":
            self._send(b"", "image/png")
        elif name.startswith("picture/"):
            self._send_picture(name.removeprefix("picture/"))
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self, name: str) -> None:
        review = self.server.review
        verbs: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "say": review.say,
            "undo": review.undo,
            "reveal": review.reveal,
            "finish": self._finish,
        }
        if name not in verbs:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such request")
        self._send_json(verbs[name](self._body()))

    def _finish(self, body: Mapping[str, Any]) -> dict[str, Any]:
        # From another thread: this one is waited for while the server stops.
        threading.Thread(target=self.server.shutdown, daemon=True).start()
        return {"is_finished": True}

    def _body(self) -> dict[str, Any]:
        origin = self.headers.get("Origin")
        own = (self.server.origin, self.server.origin.replace(HOST, "localhost"))
        if origin is not None and origin not in own:
            raise RefusedError(HTTPStatus.FORBIDDEN, "another site asks")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "answers are JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "an answer is a short text")
        try:
            found = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "an answer is a JSON object")
        return found

    def _send_picture(self, place: str) -> None:
        pictures = self.server.review.pictures
        number = int(place) if place.isdecimal() and len(place) < 10 else -1
        found = pictures.get(number) if 0 <= number < len(pictures.digests) else None
        if found is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such picture")
        self._send(found[1], found[0])

    def _send_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        content = json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")
        self._send(content, "application/json; charset=utf-8", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": review_page.policy(),
            **review_page.HEADERS,
        }
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as http.server names it
        """Say nothing: the terminal shows the address, and what was graded at the end."""
