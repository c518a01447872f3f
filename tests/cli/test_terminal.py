from __future__ import annotations

import io

from engine.cli.terminal import Bars, Lines, Pace
from engine.runtime import events

COSTS = {"wall_s": 2.0, "cpu_s": 1.5, "peak_memory_gb": 0.3}


def progress(time: float, done: int, total: int | None = 100) -> events.NodeProgress:
    return events.NodeProgress(time=time, node="train", done=done, total=total, unit="steps")


def test_rate_and_time_left_do_not_count_what_was_there_at_first():
    pace = Pace()
    pace.text(progress(10.0, 40))

    assert pace.text(progress(15.0, 50)) == "50 of 100 steps, 2.0 steps/s, 25 s left"


def test_without_a_total_there_is_no_time_left():
    pace = Pace()
    pace.text(progress(10.0, 0, None))

    assert pace.text(progress(15.0, 50, None)) == "50 steps, 10.0 steps/s"


def test_rate_is_that_of_the_last_half_minute():
    pace = Pace()
    for second in range(0, 200, 10):
        pace.text(progress(float(second), min(second, 100) * 10, 2000))

    assert "steps/s" not in pace.text(progress(200.0, 1000, 2000))


def lines_of(*found: events.Event) -> list[str]:
    stream = io.StringIO()
    display = Lines(stream, lambda _: "12:00:00")
    for event in found:
        display.handle(event)
    return stream.getvalue().splitlines()


def test_a_log_gets_a_line_for_start_and_end_and_no_flood():
    began = events.NodeStarted(time=0.0, node="train", pid=1)
    steps = [progress(float(second), second) for second in range(40)]
    ended = events.NodeFinished(time=40.0, node="train", counts={}, **COSTS)

    assert lines_of(began, *steps, ended) == [
        "12:00:00 train: started",
        "12:00:00 train: 15 of 100 steps, 1.0 steps/s, 1 min 25 s left",
        "12:00:00 train: 30 of 100 steps, 1.0 steps/s, 1 min 10 s left",
        "12:00:00 train: done in 2.0 s, 39 of 100 steps",
    ]


def test_cached_nodes_are_not_listed():
    assert lines_of(events.NodeCached(time=0.0, node="train", reason="in the store")) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_rate_and_time_left():
    stream = Terminal()
    bars = Bars(stream)
    bars.handle(events.NodeStarted(time=0.0, node="train", pid=1))
    bars.handle(progress(1.0, 10))
    bars.handle(progress(2.0, 20))
    bars.refresh()
    bars.handle(events.NodeFinished(time=3.0, node="train", counts={}, **COSTS))
    bars.close()

    assert "20 of 100 steps, 10.0 steps/s, 8.0 s left" in stream.getvalue()
    assert "done in 2.0 s, 20 of 100 steps" in stream.getvalue()
