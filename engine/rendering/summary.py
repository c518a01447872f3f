"""The summary of an experiment: one JSON document from the artifacts of its nodes.

It holds what follows from recipe and results alone. What belongs to a run (node states, times,
memory, the run's id) is joined to it by `adapt report`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from engine import __version__
from engine.artifacts import QUARANTINE, Artifact

Nodes = Mapping[str, Artifact]  # plain node id -> artifact, of one arm
SCORES = "evaluate.scores/"
ANSWERS = "evaluate.answers/"
FUNNEL = {
    "pairs": "pairs in",
    "generated": "completions",
    "parsed": "tasks generated",
    "kept": "tasks kept",
    "trained": "rows trained on",
}
FUNNEL_FROM = {  # step -> plain id of a node, and what it counts
    "pairs": ("curate", "pairs"),
    "generated": ("generate", "generated"),
    "parsed": ("generate", "tasks"),
    "kept": ("filter", "kept"),
    "trained": ("train", "rows"),
}


def summarise(
    recipe: str, arms: Mapping[str, Nodes], general: Collection[str] = ()
) -> dict[str, Any]:
    """Return the part of `schemas/summary.schema.json` that does not depend on the run.

    `general` names the benchmarks that show what the adapted model has forgotten.
    """
    return {
        "recipe": recipe,
        "engine": __version__,
        "arms": [_arm(name, nodes, general) for name, nodes in arms.items()],
        "gates": [],
        "quarantined": sum(ledger(arms).values()),
    }


def _arm(name: str, nodes: Nodes, general: Collection[str]) -> dict[str, Any]:
    return {
        "name": name,
        "max_items": max_items(nodes),
        "funnel": funnel(nodes),
        "scores": scores(nodes, general),
    }


def max_items(nodes: Nodes) -> int | None:
    """Return to how many items the benchmarks were cut; None when they were asked whole."""
    asked = (a.manifest.preimage for name, a in nodes.items() if name.startswith(ANSWERS))
    cuts = [preimage.get("params", {}).get("max_items") for preimage in asked]
    return min((int(cut) for cut in cuts if cut is not None), default=None)


def funnel(nodes: Nodes) -> dict[str, int]:
    """Return how many rows each step left; a step that an arm does not have counts 0."""
    return {step: _rows(nodes, node, count) for step, (node, count) in FUNNEL_FROM.items()}


def scores(nodes: Nodes, general: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the score rows of every benchmark, a row per answer type after each whole one."""
    return [
        {**row, "panel": "general" if row["benchmark"] in general else "domain"}
        for name, artifact in nodes.items()
        if name.startswith(SCORES) and artifact.file("scores.json").is_file()
        for row in artifact.json("scores.json")
    ]


def whole(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that stand for a whole benchmark."""
    return [row for row in rows if row.get("answer_type") is None]


def losses(artifact: Artifact) -> tuple[list[tuple[float, float]], int]:
    """Return step and loss where the loss is a number, and how often it is none."""
    points = [(float(row["step"]), row.get("loss")) for row in artifact.rows("losses")]
    good = [(step, float(loss)) for step, loss in points if loss is not None]
    good = [point for point in good if math.isfinite(point[1])]
    return good, len(points) - len(good)


def ledger(arms: Mapping[str, Nodes]) -> dict[str, int]:
    """Return how many rows were set aside, by reason; a shared node counts once."""
    artifacts = {a.manifest.key: a for nodes in arms.values() for a in nodes.values()}
    reasons: Counter[str] = Counter()
    for artifact in artifacts.values():
        for name, count in artifact.manifest.counts.items():
            if name.startswith(f"{QUARANTINE}: "):
                reasons[name.removeprefix(f"{QUARANTINE}: ")] += int(count)
    return dict(reasons.most_common())


def _rows(nodes: Nodes, node: str, count: str) -> int:
    return int(nodes[node].manifest.counts.get(count, 0)) if node in nodes else 0
