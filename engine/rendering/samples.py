"""Rows to look at: kept and dropped tasks, answers of both models, each with its picture."""

from __future__ import annotations

import base64
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine import images
from engine.artifacts import QUARANTINE, Artifact
from engine.images import ImageBank, ImageError
from engine.records import Record, from_json
from engine.rendering.summary import Nodes

NUM_SAMPLES = 10
THUMB_PX = 128
PNG_BYTES = 16_000  # a larger thumbnail is stored as JPEG
DROPPED = "dropped: "


def bank_of(nodes: Nodes) -> ImageBank:
    """Return the pictures of an arm; none when an image file cannot be read."""
    folders = [artifact.path for name, artifact in nodes.items() if name.startswith("collect")]
    try:
        return ImageBank(folders)
    except (OSError, ValueError):
        return ImageBank(())


def kept(nodes: Nodes, bank: ImageBank) -> list[dict[str, Any]]:
    """Return the first kept tasks."""
    if "filter" not in nodes:
        return []
    tasks = list(itertools.islice(nodes["filter"].records("kept"), NUM_SAMPLES))
    return _tasks(tasks, bank, nodes)


def dropped(nodes: Nodes, bank: ImageBank) -> list[dict[str, Any]]:
    """Return dropped tasks, every reason in turn."""
    if "filter" not in nodes:
        return []
    rows = _in_turn(nodes["filter"].rows("dropped"), lambda row: (row["filter"], row["reason"]))
    tasks = _tasks([from_json(row["record"]) for row in rows], bank, nodes)
    return [
        {**task, "filter": row["filter"], "reason": row["reason"], "detail": row["detail"]}
        for task, row in zip(tasks, rows, strict=True)
    ]


def drop_reasons(nodes: Nodes) -> dict[str, int]:
    """Return how many tasks were dropped, by `filter: reason`, the commonest first."""
    counts = nodes["filter"].manifest.counts if "filter" in nodes else {}
    found = {
        name.removeprefix(DROPPED): int(count)
        for name, count in counts.items()
        if name.startswith(DROPPED)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def answers(nodes: Nodes, bank: ImageBank) -> list[dict[str, Any]]:
    """Return sample answers of every benchmark: better, worse and the rest, in that order."""
    found = []
    for name, artifact in nodes.items():
        if name.startswith("evaluate.scores/"):
            rows = sorted(_in_turn(artifact.rows("items"), _change), key=_place)
            samples = [_answer(row, bank) for row in rows]
            found.append({"benchmark": name.partition("/")[2], "samples": samples})
    return [benchmark for benchmark in found if benchmark["samples"]]


def changes(artifact: Artifact) -> dict[str, int]:
    """Return how many items the adapted model answers better, worse, equally well."""
    found = {"right": 0, "wrong": 0, "same": 0}
    for row in artifact.rows("items"):
        found[_change(row)] += 1
    return found


def _tasks(tasks: Sequence[Record], bank: ImageBank, nodes: Nodes) -> list[dict[str, Any]]:
    captions = _captions(nodes, {pair for task in tasks for pair in task.meta.lineage})
    return [
        {
            "image": _thumb(bank, task.images),
            "caption": next((captions[p] for p in task.meta.lineage if p in captions), ""),
            "instruction": task.instruction,
            "informative": _said(task, "informative"),
            "precise": _said(task, "precise"),
            "judged": _judged(task),
        }
        for task in tasks
    ]


def _judged(task: Record) -> list[str]:
    """Return what filters noted: who, the label, and how sure it was."""
    notes = [(name, n) for name, n in task.meta.extra.items() if isinstance(n, Mapping)]
    return [
        f"{name}: {note['label']}" + (f" {note['score']:.2f}" if "score" in note else "")
        for name, note in notes
        if "label" in note
    ]


def mended(nodes: Nodes, bank: ImageBank) -> list[dict[str, Any]]:
    """Return the first tasks that were kept once their answers had been written again."""
    if "filter/repaired" not in nodes:
        return []
    rows = list(itertools.islice(nodes["filter/repaired"].records("kept"), NUM_SAMPLES))
    old = [row.meta.extra.get("mended", {}) for row in rows]
    return [
        {
            **task,
            "filter": was.get("by", ""),
            "reason": was.get("reason", ""),
            "detail": f"its precise answer was: {was.get('precise', '')}",
        }
        for task, was in zip(_tasks(rows, bank, nodes), old, strict=True)
    ]


def unparsed(nodes: Nodes) -> list[dict[str, str]]:
    """Return outputs that gave no task, or fewer than they hold, every reason in turn."""
    if "generate" not in nodes:
        return []
    rows = _in_turn(nodes["generate"].rows(QUARANTINE), lambda row: row["reason"])
    return [{name: str(row[name]) for name in ("source_id", "reason", "detail")} for row in rows]


def task_types(nodes: Nodes) -> list[dict[str, Any]]:
    """Return how many tasks of each type were written and kept; empty where types are not known."""
    if "filter" not in nodes:
        return []
    kept: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for row in nodes["filter"].rows("kept"):
        kept[row["meta"].get("extra", {}).get("task_type", "")] += 1
    for row in nodes["filter"].rows("dropped"):
        written[row["record"]["meta"].get("extra", {}).get("task_type", "")] += 1
    written += kept
    return [
        {"name": name, "written": number, "kept": kept[name]}
        for name, number in written.most_common()
        if name
    ]


def _said(task: Record, style: str) -> str:
    return next((turn.text for turn in task.turns if turn.style == style), "")


def _captions(nodes: Nodes, wanted: set[str]) -> dict[str, str]:
    if not wanted or "curate" not in nodes:
        return {}
    pairs = nodes["curate"].records("pairs")
    return {pair.id: pair.caption for pair in pairs if pair.id in wanted}


def _change(row: Mapping[str, Any]) -> str:
    if row["adapted"] == row["base"]:
        return "same"
    return "right" if row["adapted"] > row["base"] else "wrong"


def _place(row: Mapping[str, Any]) -> int:
    return ("right", "wrong", "same").index(_change(row))


def _in_turn(rows: Iterable[Mapping[str, Any]], group: Any) -> list[Mapping[str, Any]]:
    """Return a few rows, one of each group after the other; memory holds no more than a few."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        found = groups.setdefault(group(row), [])
        if len(found) < NUM_SAMPLES:
            found.append(row)
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*groups.values()))
    return [row for row in mixed if row is not None][:NUM_SAMPLES]


def _answer(row: Mapping[str, Any], bank: ImageBank) -> dict[str, Any]:
    names = ("question", "reference", "answer_type")
    shown: dict[str, Any] = {name: row[name] for name in names}
    shown["image"] = _thumb(bank, row.get("images", ()))
    shown["change"] = {"right": "better", "wrong": "worse"}.get(_change(row), "")
    shown["models"] = [
        {
            "name": model,
            "answer": row[f"{model}_answer"],
            "points": round(row[model] * 100),
            "kind": _rightness(row[model]),
            "is_unparsed": row[f"{model}_parsed"] is None,
        }
        for model in ("base", "adapted")
    ]
    return shown


def _rightness(score: float) -> str:
    if score >= 1:
        return "right"
    return "partly" if score > 0 else "wrong"


def _thumb(bank: ImageBank, digests: Sequence[str]) -> str:
    """Return a small picture as a data URI; empty when there is none that can be read."""
    if not digests or digests[0] not in bank:
        return ""
    try:
        picture = bank.open(digests[0])
    except ImageError:
        return ""
    if max(picture.size) > THUMB_PX:
        picture.thumbnail((THUMB_PX, THUMB_PX))
    encoded = images.encode_png(picture)
    if len(encoded) <= PNG_BYTES:
        return _data_uri("png", encoded)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return _data_uri("jpeg", buffer.getvalue())


def _data_uri(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
