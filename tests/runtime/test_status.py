from __future__ import annotations

from engine.runtime import events
from engine.runtime.status import Fold, fold
from tests.runtime.test_events import (
    ALL_FINISHED,
    BEGAN,
    CACHED,
    FAILED,
    FINISHED,
    PROGRESS,
    RETRIED,
    SKIPPED,
    STARTED,
    STOPPED,
    USAGE,
)


def test_status_is_a_fold():
    found = Fold()
    for event in (STARTED, CACHED, BEGAN, PROGRESS):
        found.add(event)
    status = found.status()

    assert (status.state, status.recipe) == ("running", "fake")
    assert {name: node.state for name, node in status.nodes.items()} == {
        "a": "cached",
        "b": "running",
        "c": "waiting",
    }
    assert status.nodes["b"].done == 1
    found.add(FINISHED)
    found.add(events.RunFinished(time=9.0, failed=()))
    later = found.status()
    assert (later.state, later.nodes["b"].state, later.nodes["b"].wall_s) == (
        "finished",
        "ran",
        2.0,
    )
    assert status.nodes["b"].state == "running"  # what was given out does not change


def test_a_failed_node_fails_the_run():
    status = fold([STARTED, BEGAN, FAILED, SKIPPED, ALL_FINISHED])

    assert status.state == "failed"
    assert status.nodes["b"].message == "no"
    assert (status.nodes["c"].state, status.nodes["c"].message) == ("skipped", "`b` failed")


def test_a_stopped_run_leaves_no_node_running():
    status = fold([STARTED, BEGAN, STOPPED])

    assert (status.state, status.nodes["b"].state) == ("stopped", "stopped")


def test_a_node_that_is_tried_again_says_why_until_it_runs():
    paused = fold([STARTED, BEGAN, RETRIED]).nodes["b"]
    again = fold([STARTED, BEGAN, RETRIED, events.NodeStarted(time=9.0, node="b", pid=8)])

    assert (paused.state, paused.message) == ("retrying", "tried again: no network")
    node = again.nodes["b"]
    assert (node.state, node.message, node.attempts, node.started_at) == ("running", "", 2, 3.0)


def test_progress_of_another_part_shows_that_the_node_runs():
    assert fold([STARTED, BEGAN, RETRIED, PROGRESS]).nodes["b"].state == "running"


def test_what_a_node_takes_is_known_while_it_runs():
    running = fold([STARTED, BEGAN, USAGE]).nodes["b"]
    over = fold([STARTED, BEGAN, USAGE, FINISHED]).nodes["b"]

    assert (running.memory_gb, running.cpu_percent) == (0.5, 99.0)
    assert (over.memory_gb, over.peak_memory_gb) == (0.0, 0.3)
