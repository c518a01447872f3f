"""The summary of an experiment: one JSON document from the artifacts of its nodes.

It holds what follows from recipe and results alone. What belongs to a run (node states, times,
memory, the run's id) is joined to it by `adapt report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from engine import __version__
from engine.artifacts import QUARANTINE, Artifact

Nodes = Mapping[str, Artifact]  # plain node id -> artifact, of one arm


def summarise(recipe: str, arms: Mapping[str, Nodes]) -> dict[str, Any]:
    """Return the part of `schemas/summary.schema.json` that does not depend on the run."""
    return {
        "recipe": recipe,
        "engine": __version__,
        "arms": [
            {"name": name, "funnel": funnel(nodes), "scores": scores(nodes)}
            for name, nodes in arms.items()
        ],
        "gates": [],
        "quarantined": sum(ledger(arms).values()),
    }


def funnel(nodes: Nodes) -> dict[str, int]:
    """Return how many rows each step left; a step that an arm does not have counts 0."""
    return {
        "pairs": _rows(nodes, "curate", "pairs"),
        "generated": _rows(nodes, "generate", "generated"),
        "parsed": _rows(nodes, "generate", "tasks"),
        "kept": _rows(nodes, "filter", "kept"),
        "trained": _rows(nodes, "train", "rows"),
    }


def scores(nodes: Nodes) -> list[dict[str, Any]]:
    """Return the score rows of every benchmark, a row per answer type after each whole one."""
    return [
        row
        for name, artifact in nodes.items()
        if name.startswith("evaluate.scores/")
        for row in artifact.json("scores.json")
    ]


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
