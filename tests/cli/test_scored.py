from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact, Outputs
from engine.cli import scored
from engine.plan.stage import Node
from engine.runtime.store import Store


def node(key: str, **params: Any) -> Node:
    """Return a node of `evaluate.scores`."""
    return Node(
        id="evaluate.scores/cells",
        stage="evaluate.scores",
        params={"scorer": "strict", "scorer_version": 3, "metric": "exact", **params},
        inputs={},
        key=key * 64,
        preimage={"key": key},
        seed=7,
        prompts={},
        origin={},
        arms=("main",),
    )


def result(store: Store, of: Node, scores: dict[str, float]) -> Artifact:
    """Publish scores of an adapted model, one per item; each item has an image of its own."""
    outputs = Outputs(store.staging(of.key))
    for name, value in scores.items():
        outputs.rows("items").write({"id": name, "cluster": name, "adapted": value, "base": 0.0})
    mean = 100 * sum(scores.values()) / len(scores)
    row = {"benchmark": "cells", "answer_type": None, "base": 0.0, "adapted": mean}
    outputs.write_json("scores.json", [row])
    return store.publish(of, outputs.path, outputs.counts(), {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def items(*values: float) -> dict[str, float]:
    return {f"item-{number:02d}": value for number, value in enumerate(values)}


def test_the_adapted_models_are_compared_on_the_same_items(store: Store):
    old, new = node("a"), node("b")
    before = result(store, old, items(*[0.0] * 12))
    after = result(store, new, items(*[1.0] * 9, *[0.0] * 3))
    found = scored.compared(old, new, before, after)

    assert found["reason"] is None
    assert (found["paired"]["old"], found["paired"]["new"]) == (0.0, 75.0)
    assert found["paired"]["difference"] == 75.0
    assert found["paired"]["ci_low"] > 0
    assert found["paired"]["num_items"] == 12


def test_one_result_is_not_compared_with_itself(store: Store):
    old = node("a")
    before = result(store, old, items(1.0))

    assert scored.compared(old, old, before, before)["reason"] == "the same result"


def test_other_items_are_not_compared(store: Store):
    old, new = node("a"), node("b")
    before, after = result(store, old, items(1.0)), result(store, new, items(1.0, 0.0))
    found = scored.compared(old, new, before, after)

    assert found["paired"] is None
    assert found["reason"] == "they have other items (1 in common)"


def test_another_scorer_is_not_compared(store: Store):
    old, new = node("a"), node("b", scorer_version=4)
    before, after = result(store, old, items(1.0)), result(store, new, items(1.0))

    reason = scored.compared(old, new, before, after)["reason"]
    assert reason == "they were scored differently (scorer version)"
