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
    "kept": ("filter", "kept"),  # and those that were kept once they had been mended
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
        "steps": steps(nodes),
        "scores": scores(nodes, general),
    }


def max_items(nodes: Nodes) -> int | None:
    """Return to how many items the benchmarks were cut; None when they were asked whole."""
    asked = (a.manifest.preimage for name, a in nodes.items() if name.startswith(ANSWERS))
    cuts = [preimage.get("params", {}).get("max_items") for preimage in asked]
    return min((int(cut) for cut in cuts if cut is not None), default=None)


def funnel(nodes: Nodes) -> dict[str, int]:
    """Return how many rows each step left; a step that an arm does not have counts 0."""
    found = {step: _rows(nodes, node, count) for step, (node, count) in FUNNEL_FROM.items()}
    found["kept"] += _rows(nodes, "filter/repaired", "kept")
    return found


def steps(nodes: Nodes) -> list[dict[str, Any]]:
    """Return the whole way from pairs to rows: each step and what it left, in order.

    Every filter of tasks is a step. Tasks that were mended come back after all filters.
    """
    found = [("image-caption pairs", _rows(nodes, "curate", "pairs"))]
    if "generate" in nodes:
        found.append(("outputs of the generator", _rows(nodes, "generate", "outputs")))
        found.append(("tasks parsed", _rows(nodes, "generate", "tasks")))
    found += [(f"after {label}", left) for label, left in left_by_filters(nodes)]
    if "filter/repaired" in nodes:
        kept = _rows(nodes, "filter", "kept") + _rows(nodes, "filter/repaired", "kept")
        found.append(("with mended tasks", kept))
    if "mix" in nodes:
        found.append(("tasks joined into rows", _rows(nodes, "mix", "part: synthetic")))
    found.append(("rows trained on", _rows(nodes, "train", "rows")))
    return [{"step": step, "rows": rows} for step, rows in found]


def left_by_filters(nodes: Nodes) -> list[tuple[str, int]]:
    """Return how many tasks each filter left, in the order of the recipe."""
    if "filter" not in nodes:
        return []
    manifest = nodes["filter"].manifest
    names = [str(use["use"]) for use in manifest.preimage.get("params", {}).get("filters", ())]
    left = int(manifest.counts.get("kept", 0) + manifest.counts.get("dropped", 0))
    found = []
    for place, name in enumerate(names):
        number = names[: place + 1].count(name)
        label = name if number == 1 else f"{name}/{number}"
        dropped = f"dropped: {label}: "
        left -= sum(int(n) for what, n in manifest.counts.items() if what.startswith(dropped))
        found.append((label, left))
    return found


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


def held_out_losses(artifact: Artifact) -> list[Mapping[str, Any]]:
    """Return the rows that tell a loss of held-out rows, one for each epoch."""
    return [row for row in artifact.rows("losses") if row.get("held_out_loss") is not None]


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
