from __future__ import annotations

from engine.cli import tables

SUMMARY = {
    "arms": [
        {
            "name": "main",
            "funnel": {"pairs": 1700, "generated": 690, "parsed": 650, "kept": 402, "trained": 700},
            "scores": [
                {
                    "benchmark": "cells",
                    "metric": "match",
                    "base": 12.34,
                    "adapted": 63.0,
                    "difference": 50.66,
                    "ci_low": 46.0,
                    "ci_high": 55.4,
                    "num_items": 400,
                },
                {
                    "benchmark": "cells",
                    "answer_type": "yes_no",
                    "metric": "match",
                    "base": 50.0,
                    "adapted": 49.0,
                    "difference": -1.0,
                    "ci_low": -3.0,
                    "ci_high": 1.0,
                    "num_items": 100,
                },
            ],
        }
    ]
}


def test_the_summary_is_a_funnel_and_a_score_table():
    assert tables.summary_text(SUMMARY) == (
        "  funnel  pairs in  completions  tasks generated  tasks kept  rows trained on\n"
        "  main       1,700          690              650         402              700\n"
        "\n"
        "  benchmark  metric  base  adapted  difference   95 % interval  items\n"
        "  cells      match   12.3     63.0       +50.7  +46.0 to +55.4    400\n"
        "    yes_no   match   50.0     49.0        -1.0    -3.0 to +1.0    100"
    )


def test_arms_are_told_apart():
    arms = [SUMMARY["arms"][0] | {"name": name} for name in ("one", "two")]
    text = tables.summary_text({"arms": arms})

    assert "one: cells" in text
    assert "two: cells" in text


def test_an_arm_without_numbers_shows_dashes():
    arm = {"name": "main", "funnel": {"pairs": 3, "generated": None}, "scores": []}

    assert tables.summary_text({"arms": [arm]}).splitlines()[1].split() == [
        "main",
        "3",
        *("-" * 4),
    ]


def test_durations_are_said_as_a_person_says_them():
    told = [tables.duration(seconds) for seconds in (0.23, 12.4, 61, 3600 * 2 + 65)]

    assert told == ["0.2 s", "12 s", "1 min 01 s", "2 h 01 min"]
