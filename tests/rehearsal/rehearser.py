"""A process that rehearses whatever it is asked to: imports are paid for once.

Rehearsals fork, which the process of the tests must not: it has computed with threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Done:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line of `--json`."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


class Rehearser:
    """Runs `adapt ...` in one process, command after command."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "ADAPT_OFFLINE": "1", "HOME": str(folder), "ADAPT_STORE": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.rehearsal.rehearser"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(self, *words: object) -> Done:
        """Run a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(word) for word in words]), file=self._process.stdin, flush=True)
        return Done(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def serve() -> None:
    """Answer each line of standard input, a command as JSON, by code, output and errors."""
    from engine.cli import main

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    asked = os.fdopen(os.dup(0), encoding="utf-8")
    for line in asked:
        with _captured(1) as out, _captured(2) as err:
            code = main(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
        print(json.dumps([code, out.read_text(), err.read_text()]), file=answers, flush=True)


@contextmanager
def _captured(descriptor: int) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        before = os.dup(descriptor)
        os.dup2(file.fileno(), descriptor)
        try:
            yield Path(file.name)
        finally:
            os.dup2(before, descriptor)
            os.close(before)


if __name__ == "__main__":
    serve()
