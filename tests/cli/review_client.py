"""Starts `adapt review` as a person does, and speaks HTTP to it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from engine.rendering.rubrics import RUBRICS
from engine.runtime.store import Store

ROOT = Path(__file__).parents[2]


class Reply(NamedTuple):
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A process that serves, and requests to it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.port = urlsplit(url).port or 0
        self.path = urlsplit(url).path

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Reply:
        """Send a request; `path` is whole. Headers are named with `_` for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, found, reply.read())
        finally:
            connection.close()

    def get(self, name: str) -> Reply:
        return self.ask(self.path + name)

    def post(self, name: str, body: Any, **headers: str) -> Reply:
        sent = {"Content_Type": "application/json", **headers}
        return self.ask(self.path + name, "POST", json.dumps(body).encode(), **sent)

    def say(self, task: str, said: str, value: Any) -> Reply:
        return self.post("say", {"task": task, "said": said, "value": value})

    def grade(self, task: str, **changes: Any) -> None:
        """Answer every rubric of a task, with its last answer unless told otherwise."""
        for rubric in RUBRICS:
            reply = self.say(task, rubric.name, changes.get(rubric.name, rubric.values[-1]))
            assert reply.status == 200, reply.body

    def tasks(self) -> list[str]:
        return [row["task"] for row in self.get("start").json["rows"]]

    def stop(self, number: int = signal.SIGINT) -> str:
        """Send a signal; return what was printed after the address."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]


@contextmanager
def reviewing(store: Store, *words: str) -> Iterator[Client]:
    """Serve until the block ends."""
    command = [sys.executable, "-m", "engine.cli", "review", *words, "--store", str(store.root)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("review  http://127.0.0.1:"), line + process.stdout.read()
        process.stdout.readline()
        process.stdout.readline()
        yield Client(process, line.split()[1])
    finally:
        process.kill()
        process.communicate()
