from __future__ import annotations

import io
import time

from engine.cli.overview import Overview, Pace
from engine.cli.terminal import Failures, Lines
from engine.runtime import events
from tests.runtime.fake_stages import PlanBuilder

COSTS = {"wall_s": 2.0, "cpu_s": 1.5, "peak_memory_gb": 0.3}


def progress(time: float, done: int, total: int | None = 100) -> events.NodeProgress:
    return events.NodeProgress(time=time, node="train", done=done, total=total, unit="steps")


def pace(*steps: tuple[float, int], total: int | None = 100) -> list[str]:
    found = Pace()
    for when, done in steps:
        found.add(progress(when, done, total))
    return found.parts()


def test_rate_and_time_left_do_not_count_what_was_there_at_first():
    assert pace((10.0, 40), (15.0, 50)) == ["2.0 steps/s", "25 s left"]


def test_without_a_total_there_is_no_time_left():
    assert pace((10.0, 0), (15.0, 50), total=None) == ["10.0 steps/s"]


def test_rate_is_that_of_the_last_half_minute():
    steps = [(float(second), min(second, 100) * 10) for second in range(0, 210, 10)]

    assert pace(*steps, total=2000) == []


def test_a_thousand_words_a_second_leave_a_pace_small():
    found = Pace()
    for number in range(40_000):
        found.add(progress(number / 1000, number, 50_000))

    assert found.parts() == ["1000.0 steps/s", "10 s left"]
    assert len(found._seen) < 150


def overview() -> Overview:
    build = PlanBuilder()
    build.add("train", stage="count")
    return Overview(build.plan())


def lines_of(*found: events.Event) -> list[str]:
    stream = io.StringIO()
    display = Lines(stream, overview())
    for event in found:
        display.handle(event)
    display.close()
    return [line.partition(" ")[2] for line in stream.getvalue().splitlines()]


def test_a_log_gets_a_line_for_start_and_end_and_no_flood():
    began = events.NodeStarted(time=0.0, node="train", pid=1)
    steps = [progress(float(second), second) for second in range(40)]
    ended = events.NodeFinished(time=40.0, node="train", counts={}, **COSTS)

    assert lines_of(began, *steps, ended) == [
        "train: started",
        "train: 15 of 100 steps, 1.0 steps/s, 1 min 25 s left",
        "train: 30 of 100 steps, 1.0 steps/s, 1 min 10 s left",
        "train: done in 2.0 s, 39 of 100 steps",
    ]


def test_cached_nodes_are_not_listed():
    assert lines_of(events.NodeCached(time=0.0, node="train", reason="in the store")) == []


def test_a_run_of_more_than_a_minute_tells_how_far_it_is_as_a_whole():
    began = events.NodeStarted(time=0.0, node="train", pid=1)
    steps = [progress(float(second), second) for second in range(70)]

    assert "0 of 1 nodes done, 1 at work, about 40 s left" in lines_of(began, *steps)


def test_a_line_bears_the_time_of_its_event():
    stream = io.StringIO()
    Lines(stream, overview()).handle(events.NodeStarted(time=86_400.0, node="train", pid=1))

    assert stream.getvalue()[:8] == time.strftime("%H:%M:%S", time.localtime(86_400.0))


def test_a_message_cannot_steer_the_terminal():
    failed = events.NodeFailed(time=0.0, node="train", message="\x1b[2J", hint=None, **COSTS)

    assert lines_of(failed) == ["train: FAILED: \\x1b[2J"]


def test_a_quiet_run_tells_failures_alone():
    stream = io.StringIO()
    display = Failures(stream)
    for event in (
        events.NodeStarted(time=0.0, node="train", pid=1),
        progress(40.0, 3),
        events.NodeFailed(time=60.0, node="train", message="no", hint=None, **COSTS),
        events.NodeFinished(time=60.0, node="other", counts={}, **COSTS),
    ):
        display.handle(event)

    (line,) = stream.getvalue().splitlines()
    assert line.endswith(" train: FAILED: no")
