"""Why a node runs: the reason names what kind of thing moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.plan import diff
from engine.plan.stage import Node
from engine.runtime import outlook
from tests.runtime.fake_stages import PlanBuilder


def node(**changed: Any) -> Node:
    build = PlanBuilder()
    build.add("count")
    found = build.plan().node("count")
    pins = {"source": {"sha256": "a"}, "a/b": {"revision": "1"}}
    base = {
        **found.preimage,
        "params": {"num_rows": 3},
        "pins": pins,
        "prompts": {"caption@1": "x"},
        "seed": 42,
    }
    return replace(found, preimage={**base, **changed})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seed": 43}, "own change: seed: 42 -> 43"),
        ({"params": {"num_rows": 5}}, "own change: num_rows: 3 -> 5"),
        (
            {"params": {"num_rows": 3, "source": {"version": 2}}},
            "own change: source: added {'version': 2}",
        ),
        ({"version": 9}, "stage version: `count` is 9, was 1"),
        ({"prompts": {"caption@1": "y"}}, "pin: the text of the prompt `caption@1` changed"),
        (
            {"pins": {"source": {"sha256": "b"}, "a/b": {"revision": "1"}}},
            "pin: the data of its source changed",
        ),
        (
            {"pins": {"source": {"sha256": "a"}, "a/b": {"revision": "2"}}},
            "pin: the weights of `a/b` changed",
        ),
        ({"version": 9, "seed": 43}, "stage version: `count` is 9, was 1 and 1 more"),
    ],
)
def test_a_reason_says_what_kind_of_thing_moved(changed: dict[str, Any], reason: str):
    old, new = node(), node(**changed)
    moved = tuple(diff.changes(old.preimage, new.preimage))

    assert outlook._reason(new, moved, {"count": outlook.WILL_RUN}, {}) == reason


def test_a_plug_in_that_moved_is_named_by_its_place():
    old, new = (node(params={"source": {"version": number}}) for number in (1, 2))
    moved = tuple(diff.changes(old.preimage, new.preimage))
    reason = outlook._reason(new, moved, {"count": outlook.WILL_RUN}, {})

    assert reason == "version of the plug-in of `source`: 1 -> 2"
