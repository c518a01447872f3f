from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest

from engine.cli.live import LiveView
from engine.cli.overview import Overview
from engine.cli.terminal import Lines, display
from engine.runtime import events, runs
from engine.runtime.store import Store
from tests.cli.fake_adapt import command
from tests.cli.test_overview import COSTS, began, ended, plan, started
from tests.runtime.fake_stages import PlanBuilder


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


STORY = (
    began("curate"),
    ended("curate", 2.0, 2.0, pairs=17),
    began("filter", 2.0),
    events.NodeFailed(time=3.0, node="filter", wall_s=1.0, message="no rows", hint=None, **COSTS),
    events.NodeSkipped(time=3.0, node="train", reason="`filter` failed"),
)


@pytest.fixture(autouse=True)
def a_real_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("LINES", "30")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_the_last_frame_stays_and_a_failure_stands_above_it():
    stream, found = Terminal(), plan("main")
    view = display(stream, Overview(found))
    view.handle(started(found))
    for event in STORY:
        view.handle(event)
    view.close()

    lines = [line.rstrip() for line in plain(stream.getvalue()).splitlines() if line.strip()]
    assert lines[0] == "✗ filter: no rows"
    assert lines.count("✗ filter: no rows") == 1
    assert lines[-4:] == [
        "✓ curate  2.0 s",
        "✗ filter  no rows",
        "- train   `filter` failed",
        "funnel  17 pairs",
    ]


def test_a_terminal_that_is_dumb_gets_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")

    assert isinstance(display(Terminal(), Overview(plan("main"))), Lines)


@pytest.mark.alone
def test_a_terminal_that_takes_nothing_holds_no_event_up():
    let_through = threading.Event()

    class Stopped(Terminal):
        def write(self, text: str) -> int:
            let_through.wait(20)
            return len(text)

    view = LiveView(Stopped(), Overview(plan("main")))
    before = time.monotonic()
    for _ in range(200):
        for event in STORY:
            view.handle(event)
    took = time.monotonic() - before
    let_through.set()
    view.close()

    assert took < 5


def test_a_terminal_that_has_gone_ends_the_view_and_nothing_else():
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    view = LiveView(Gone(), Overview(plan("main")))
    for _ in range(3):
        for event in STORY:
            view.handle(event)
        time.sleep(0.1)
    view.close()


def test_a_run_in_a_terminal_that_is_made_smaller_fits_it_and_floods_nothing(tmp_path: Path):
    build = PlanBuilder()
    build.add("slow", num_batches=10, batch_s=0.2)
    for number in range(30):
        build.add(f"count/{number}", stage="count", note=str(number))
    (tmp_path / "fake.yaml").write_text("recipe: 1\n")
    terminal, inside = pty.openpty()
    resize(terminal, 24, 80)
    words, environ = command(build.plan(), tmp_path), {**os.environ, "COLUMNS": "", "LINES": ""}
    engine = subprocess.Popen(words, stdin=inside, stdout=inside, stderr=inside, env=environ)
    os.close(inside)
    shown = read_until(terminal, 1.5)
    resize(terminal, 12, 50)
    shown_small = read_until(terminal, 30.0)
    code = engine.wait(20)
    os.close(terminal)

    assert code == 0
    assert runs.newest(Store(tmp_path / "store")).status().state == "finished"
    frames = plain(shown_small).split("fake  ")[3:]  # the first may be of the old size
    assert frames
    assert all(len(frame.splitlines()) <= 12 for frame in frames[:-1])
    assert max(len(line) for frame in frames[:-1] for line in frame.splitlines()) <= 50
    assert len(shown) + len(shown_small) < 100_000


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(terminal: int, timeout_s: float) -> str:
    """Return what is written in a time, or before the writer ends."""
    found, deadline = b"", time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if select.select([terminal], [], [], 0.05)[0]:
                found += os.read(terminal, 65536)
        except OSError:  # nobody has the other side any more
            break
    return found.decode()
