from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from engine.cli import tables
from engine.rendering.ranking import ranking
from engine.stages._ranking import ranked
from engine.statistics.clustered import difference
from tests.rendering.building import artifact, score


def arm(name: str, *scores: dict[str, Any], max_items: int | None = None) -> dict[str, Any]:
    return {"name": name, "max_items": max_items, "funnel": {}, "scores": list(scores)}


def apart(first: str, second: str) -> tuple[float, float]:
    return 10.0, 1.0


def test_the_best_mean_gain_on_the_domain_comes_first():
    arms = [
        arm("low", score("cells", 1.0, 3.0), score("slake", 5.0, 7.0)),
        arm("high", score("cells", 9.0, 11.0), score("slake", 3.0, 5.0)),
        arm("general", score("cells", 0.0, 2.0), score("slake", 0.0, 2.0))
        | {"scores": [score("cells", 0.0, 2.0), score("slake", 0.0, 2.0)]},
    ]
    arms[2]["scores"].append(score("pope", 50.0, 60.0, panel="general"))
    found = ranking(arms, apart)

    assert [(row["place"], row["arm"], row["difference"]) for row in found] == [
        (1, "high", 7.0),
        (2, "low", 4.0),
        (3, "general", 1.0),
    ]
    assert found[2]["general"] == 55.0
    # Two intervals of +-1 give a mean known to +-sqrt(2)/2.
    assert found[0]["ci_high"] == pytest.approx(7.0 + math.sqrt(2) / 2)


def test_arms_that_cannot_be_told_apart_share_a_place():
    arms = [arm(name, score("cells", 10.0 - n, 12.0 - n)) for n, name in enumerate("abcd")]
    noise = {("a", "b"): (-1.0, 2.0), ("a", "c"): (-2.0, 0.5), ("c", "d"): None}
    found = ranking(arms, lambda first, second: noise[first, second])

    places = [(row["arm"], row["place"], row["is_shared"]) for row in found]
    assert places == [("a", 1, True), ("b", 1, True), ("c", 3, True), ("d", 3, True)]


def test_an_arm_that_was_asked_something_else_is_not_ranked():
    arms = [
        arm("one", score("cells", 1.0, 3.0)),
        arm("two", score("cells", 2.0, 4.0)),
        arm("other", score("shapes", 50.0, 60.0)),
        arm("none"),
    ]
    found = ranking(arms, apart)

    assert [(row["arm"], row["place"]) for row in found] == [
        ("two", 1),
        ("one", 2),
        ("other", None),
        ("none", None),
    ]
    assert [row["reason"] for row in found[2:]] == [
        "asked other benchmarks or scored otherwise",
        "no score on a domain benchmark",
    ]


def scored(folder: Path, name: str, right: list[int]) -> dict[str, Any]:
    """Return the artifacts of an arm: item n of forty, on image n // 2, is right or not."""

    def fill(outputs: Any) -> None:
        for number in range(40):
            adapted = float(number in right)
            row = {"id": str(number), "adapted": adapted, "cluster": str(number // 2)}
            outputs.rows("items").write(row)
        outputs.rows("items").close()

    return {"evaluate.scores/cells": artifact(folder / name, "evaluate.scores/cells", fill)}


def test_arms_are_compared_on_the_items_that_they_share(tmp_path: Path):
    right = {"most": range(36), "as_many": [*range(34), 38, 39], "few": range(6)}
    arms = [arm(name, score("cells", len(of) - 1.0, len(of) + 1.0)) for name, of in right.items()]
    nodes = {name: scored(tmp_path, name, list(of)) for name, of in right.items()}
    found = ranked(arms, nodes)

    assert [(row["place"], row["arm"], row["is_shared"]) for row in found] == [
        (1, "most", True),
        (1, "as_many", True),
        (3, "few", False),
    ]


def test_the_error_of_a_difference_counts_images_and_not_items():
    first, second = [0.0] * 40, [float(number < 20) for number in range(40)]
    by_item = difference(first, second, list(range(40)))
    by_image = difference(first, second, [number // 4 for number in range(40)])

    assert by_item == (50.0, pytest.approx(100 * math.sqrt(0.25 / 40)))
    assert by_image == (50.0, pytest.approx(2 * by_item[1]))
    assert difference(first, second, [number // 10 for number in range(40)])[1] == math.inf


def test_a_ranking_is_one_table():
    arms = [
        arm("full", score("cells", 9.0, 11.0), score("pope", -3.0, -1.0, panel="general")),
        arm("lora", score("cells", 8.0, 10.0), max_items=40),
        arm("none"),
    ]
    text = tables.ranking_text(ranking(arms, lambda first, second: (1.0, 5.0)))

    assert text.splitlines() == [
        "  place  arm           adapted  difference  95 % interval  general",
        "  1=     full             40.0       +10.0  +9.0 to +11.0     -2.0",
        "  1=     lora (smoke)     39.0        +9.0  +8.0 to +10.0        -",
        "  -      none                -           -              -        -",
        "  means of 1 domain benchmark; = cannot be told apart from the first of the place on the "
        "same items",
        "  none is not ranked: no score on a domain benchmark",
    ]
