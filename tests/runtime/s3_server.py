"""A real S3 server on loopback, and a way to it that misbehaves."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

ENVIRON = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def running() -> Iterator[int]:
    """Yield the port of a moto server in a process of its own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


STALL_S = 4.0


@dataclass
class Proxy:
    """Passes requests on; `mischief(request line)` may answer, stall or cut one instead."""

    port: int
    mischief: Callable[[str], str] = lambda line: ""
    lines: list[str] = field(default_factory=list)
    _listener: socket.socket = field(default_factory=socket.socket)

    def __post_init__(self) -> None:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while (request := _message(client)) is not None:
                line = request.split(b"\r\n", 1)[0].decode()
                self.lines.append(line)
                what = self.mischief(line)
                if what == "throttle":
                    body = b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>"
                    head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(body)}\r\n\r\n"
                    client.sendall(head.encode() + body)
                elif what == "hang up":
                    return
                elif what == "stall":
                    time.sleep(STALL_S)
                    return
                elif what == "half":
                    _half_up(request, self.port)
                    return
                else:
                    answer = _asked(request, self.port)
                    client.sendall(answer[: len(answer) // 2] if what == "cut" else answer)
                    if what == "cut":
                        return


def _message(source: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        block = source.recv(65536)
        if not block:
            return None
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    if re.search(rb"expect: 100-continue", head, re.I):
        source.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    if length:
        while len(body) < int(length[1]):
            body += source.recv(65536)
        return head + b"\r\n\r\n" + body
    if re.search(rb"transfer-encoding: chunked", head, re.I):
        while not body.endswith(b"0\r\n\r\n"):
            body += source.recv(65536)
    return head + b"\r\n\r\n" + body


def _asked(request: bytes, port: int) -> bytes:
    closing = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", request, count=1)
    closing = closing.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    closing = re.sub(rb"(?i)\r\nexpect: [^\r]*", b"", closing, count=1)
    answer = b""
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.sendall(closing)
        while block := server.recv(65536):
            answer += block
    return re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", answer, count=1)


def _half_up(request: bytes, port: int) -> None:
    """Send the first half of an upload on, then nothing more."""
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.sendall(request[: len(request) // 2])


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    with running() as port:
        yield port
