from __future__ import annotations

import time

import pytest

from engine.cli.frame import ASCII, UNICODE, Frame, Signs
from engine.cli.overview import Overview
from engine.runtime import events
from tests.cli.test_overview import COSTS, began, ended, plan, seen, started


def shown(
    run: Overview, now: float = 30.0, width: int = 100, height: int = 30, signs: Signs = UNICODE
) -> list[str]:
    lines = Frame(run, now, width, height, signs).lines()
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def at_work() -> Overview:
    found = plan("main")
    return seen(
        Overview(found, expected={"train": 60.0}),
        [started(found), began("curate"), ended("curate", 9.0, 9.0, pairs=1700), began("filter")]
        + [
            events.NodeProgress(time=float(t), node="filter", done=10 * t, total=400, unit="tasks")
            for t in range(10, 31)
        ]
        + [
            events.NodeUsage(
                time=30.0, node="filter", memory_gb=11.34, cpu_percent=134.2, gpu_memory_gb=61.25
            )
        ],
    )


def test_a_small_plan_is_shown_node_by_node():
    assert shown(at_work()) == [
        "fake  1 of 3 nodes, 30 s, about 1 min 10 s left",
        "✓ curate  9.0 s",
        "● filter  ━━━━━━━───  300/400 tasks  10.0/s  10 s left  11.3 GB  cpu 134 %  gpu 61.2 GB",
        "· train   after filter",
        "funnel  1,700 pairs",
    ]


def test_a_narrow_terminal_leaves_out_what_a_node_takes_rather_than_half_of_it():
    assert shown(at_work(), width=64)[2] == "● filter  ━━━━━━──  300/400 tasks  10.0/s  10 s left"


def test_a_terminal_without_unicode_gets_ascii_alone():
    assert all(line.isascii() for line in shown(at_work(), signs=ASCII))


def many() -> Overview:
    found = plan(*(f"arm_{number:04}" for number in range(5000)))
    happened = [started(found), began("curate"), ended("curate", 9.0, 9.0, pairs=1700)]
    for number in range(1, 40):
        happened += [began(f"filter@arm_{number:04}", 9.0)]
    happened += [ended(f"filter@arm_{number:04}", 20.0, 11.0, kept=number) for number in (3, 4)]
    happened += [
        events.NodeFailed(
            time=20.0, node="filter@arm_0005", wall_s=1.0, message="no rows", hint=None, **COSTS
        )
    ]
    return seen(Overview(found), happened)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [6, 10, 24, 60])
def test_a_frame_fits_its_terminal_however_many_nodes_there_are(width: int, height: int):
    for run in (at_work(), many()):
        lines = shown(run, width=width, height=height)

        assert len(lines) < max(height, 7)
        assert max(map(len, lines)) <= width


def test_a_large_plan_is_shown_by_stage_and_by_arm():
    lines = shown(many(), height=30)

    assert lines[0] == "fake  3 of 10,001 nodes, 1 failed, 30 s, more than 23 min 44 s left"
    assert lines[1].startswith("✗ count")
    assert lines[1].endswith("36 running, 1 failed")
    assert "✗ arm_0005" in "\n".join(lines)  # what failed comes before what waits
    assert any(line.startswith("  and ") and line.endswith("more of 5,000") for line in lines)
    assert lines[-1] == "funnel  1,700 pairs"


def test_arms_tell_the_steps_in_which_they_differ():
    found = plan("one", "two")
    happened = [started(found), ended("curate", 9.0, 9.0, pairs=1700)]
    happened += [ended("filter", 9.0, 9.0, kept=300), ended("filter@two", 9.0, 9.0, kept=200)]
    lines = shown(seen(Overview(found), happened))

    assert [line.endswith("kept") for line in lines[-3:]] == [True, True, False]
    assert "two" in lines[-2]
    assert "200 kept" in lines[-2]


@pytest.mark.alone
def test_a_frame_of_ten_thousand_nodes_is_drawn_in_a_moment():
    run = many()
    shown(run)  # the time left is found once in a while
    began_at = time.process_time()
    for _ in range(10):
        shown(run)

    assert (time.process_time() - began_at) / 10 < 0.05
