"""The HTML report: what a reviewer wants to see, in one file that needs no network.

Captions, answers and reasons are untrusted text: everything goes through an escaping template.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from engine import images
from engine.artifacts import Artifact
from engine.images import ImageBank
from engine.records import Record, from_json
from engine.rendering import charts
from engine.rendering.summary import Nodes, ledger

NUM_SAMPLES = 10
THUMB_PX = 128
FUNNEL = {
    "pairs": "pairs in",
    "generated": "completions",
    "parsed": "tasks generated",
    "kept": "tasks kept",
    "trained": "rows trained on",
}


def report_html(
    summary: Mapping[str, Any],
    raw: Mapping[str, Any],
    plan: Sequence[Mapping[str, str]],
    arms: Mapping[str, Nodes],
) -> str:
    """Return the whole page."""
    shown = [_arm(arm, arms[arm["name"]], is_only=len(arms) == 1) for arm in summary["arms"]]
    page = _template().render(
        recipe=summary["recipe"],
        description=raw.get("description", ""),
        engine=summary["engine"],
        recipe_text=_yaml(raw),
        plan=plan,
        arms=shown,
        ledger=ledger(arms),
        verdicts=[verdict(row) for arm in summary["arms"] for row in _whole(arm["scores"])],
    )
    return str(page)


def verdict(row: Mapping[str, Any]) -> str:
    """Return one honest sentence about a score row."""
    name, items = row["benchmark"], f"{row['num_items']:,} items"
    change = f"{row['base']:.1f} to {row['adapted']:.1f}"
    interval = f"95 % interval {row['ci_low']:+.1f} to {row['ci_high']:+.1f}, {items}"
    if row["ci_low"] > 0:
        return f"{name}: a gain of {row['difference']:.1f} points, {change} ({interval})."
    if row["ci_high"] < 0:
        return f"{name}: a loss of {-row['difference']:.1f} points, {change} ({interval})."
    return f"{name}: no gain shown, {change}; the interval includes zero ({interval})."


def _arm(arm: Mapping[str, Any], nodes: Nodes, *, is_only: bool) -> dict[str, Any]:
    bank = ImageBank(artifact.path for name, artifact in nodes.items() if "collect" in name)
    return {
        "name": "" if is_only else arm["name"],
        "funnel": charts.funnel_svg([(FUNNEL[k], int(v)) for k, v in arm["funnel"].items()]),
        "scores": [_score(row) for row in arm["scores"]],
        "intervals": charts.interval_svg(arm["scores"]),
        "curves": _curves(nodes),
        "kept": _tasks(_first_records(nodes.get("filter"), "kept"), bank, nodes),
        "dropped": _dropped(nodes, bank),
        "answers": _answers(nodes, bank),
    }


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    kind = "gain" if row["ci_low"] > 0 else "loss" if row["ci_high"] < 0 else "open"
    return {**row, "kind": kind}


def _whole(scores: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in scores if row.get("answer_type") is None]


def _curves(nodes: Nodes) -> list[dict[str, str]]:
    found = []
    for name, artifact in nodes.items():
        points = [(row["step"], row["loss"]) for row in artifact.rows("losses")]
        if len(points) > 1:
            found.append({"name": name, "svg": charts.curve_svg(points)})
    return found


def _first_records(artifact: Artifact | None, row_set: str) -> list[Record]:
    return list(itertools.islice(artifact.records(row_set), NUM_SAMPLES)) if artifact else []


def _tasks(tasks: Sequence[Record], bank: ImageBank, nodes: Nodes) -> list[dict[str, Any]]:
    captions = _captions(nodes, {pair for task in tasks for pair in task.meta.lineage})
    return [
        {
            "image": _thumb(bank, task.images),
            "caption": next((captions[p] for p in task.meta.lineage if p in captions), ""),
            "instruction": task.instruction,
            "informative": task.answer("informative"),
            "precise": task.answer("precise"),
        }
        for task in tasks
    ]


def _captions(nodes: Nodes, wanted: set[str]) -> dict[str, str]:
    if "curate" not in nodes:
        return {}
    pairs = nodes["curate"].records("pairs")
    return {pair.id: pair.caption for pair in pairs if pair.id in wanted}


def _dropped(nodes: Nodes, bank: ImageBank) -> list[dict[str, Any]]:
    if "filter" not in nodes:
        return []
    rows = list(itertools.islice(nodes["filter"].rows("dropped"), NUM_SAMPLES))
    tasks = _tasks([from_json(row["record"]) for row in rows], bank, nodes)
    return [
        {**task, "reason": row["reason"], "detail": row["detail"]}
        for task, row in zip(tasks, rows, strict=True)
    ]


def _answers(nodes: Nodes, bank: ImageBank) -> list[dict[str, Any]]:
    """Return sample answers of every benchmark: wins, losses and the rest in turn."""
    found = []
    for name, artifact in nodes.items():
        if name.startswith("evaluate.scores/"):
            samples = [_answer(row, bank) for row in _in_turn(artifact.rows("items"))]
            found.append({"benchmark": name.partition("/")[2], "samples": samples})
    return found


def _in_turn(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    kinds: dict[str, list[Mapping[str, Any]]] = {"win": [], "loss": [], "same": []}
    for row in rows:
        change = row["adapted"] - row["base"]
        kinds["win" if change > 0 else "loss" if change < 0 else "same"].append(row)
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*kinds.values()))
    return [row for row in mixed if row is not None][:NUM_SAMPLES]


def _answer(row: Mapping[str, Any], bank: ImageBank) -> dict[str, Any]:
    names = ("question", "reference", "answer_type", "base_answer", "adapted_answer")
    shown: dict[str, Any] = {name: row[name] for name in names}
    shown["image"] = _thumb(bank, row["images"])
    shown["base_is_right"], shown["adapted_is_right"] = row["base"] >= 0.5, row["adapted"] >= 0.5
    return shown


def _thumb(bank: ImageBank, digests: Sequence[str]) -> str:
    """Return a small picture as a data URI; empty when the row has none."""
    if not digests or digests[0] not in bank:
        return ""
    picture = bank.open(digests[0])
    if max(picture.size) > THUMB_PX:
        picture.thumbnail((THUMB_PX, THUMB_PX))
    encoded = images.encode_png(picture)
    if len(encoded) > 16_000:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=80)
        return _data_uri("jpeg", buffer.getvalue())
    return _data_uri("png", encoded)


def _data_uri(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def _yaml(raw: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True, width=100))


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    text = (Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(text)
