from __future__ import annotations

from dataclasses import replace

from engine.plan.stage import Needs, Part
from engine.runtime.retries import MAX_CRASHES, Retry
from engine.runtime.work import Work
from tests.runtime.test_scheduler import node

CRASH, NETWORK = Retry("crash", is_crash=True), Retry("network")
ISOLATING = Needs(sharded=True, isolates=True)


def test_crashes_of_a_part_that_isolates_leave_the_ordinary_retries_alone() -> None:
    work, part = Work(node("count", ISOLATING), 2), Part(0, 2)
    for _ in range(MAX_CRASHES):
        assert work.may_retry(part, CRASH, 3)
        assert work.retry(part, 1.0, CRASH) == 1.0

    assert not work.may_retry(part, CRASH, 3)
    assert work.may_retry(Part(1, 2), CRASH, 3)
    for pause_s in (1.0, 4.0, 16.0):
        assert work.may_retry(part, NETWORK, 3)
        assert work.retry(part, 1.0, NETWORK) == pause_s
    assert not work.may_retry(part, NETWORK, 3)
    assert work.attempt == MAX_CRASHES + 3


def test_crashes_of_other_nodes_are_ordinary_failures() -> None:
    work = Work(replace(node("count"), needs=Needs()), 1)
    for _ in range(3):
        assert work.may_retry(None, CRASH, 3)
        work.retry(None, 1.0, CRASH)

    assert not work.may_retry(None, CRASH, 3)
