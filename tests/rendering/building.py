"""Hand-made artifacts of a finished experiment, as the stages would leave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact, Manifest, Outputs
from engine.images import ImageWriter, encode_png
from engine.records import ImagePart, Kind, Meta, assistant, make_record, pair, to_json, user

REASONS = ("answers disagree", "answers disagree", "no verdict")


def artifact(
    folder: Path, name: str, fill: Callable[[Outputs], None], params: dict[str, Any] | None = None
) -> Artifact:
    outputs = Outputs(folder / name.replace("/", "_"))
    outputs.path.mkdir(parents=True)
    fill(outputs)
    key = f"{folder.name}-{name}"
    preimage = {"params": params or {}}
    manifest = Manifest(key, name.split("/")[0], (), outputs.counts(), (), preimage, "digest")
    return Artifact(outputs.path, manifest)


def score(benchmark: str, low: float, high: float, **changes: Any) -> dict[str, Any]:
    """Return a score row whose interval is given and whose difference is its middle."""
    middle = (low + high) / 2
    row = {"benchmark": benchmark, "answer_type": None, "metric": "exact", "scorer": "strict"}
    row |= {"base": 30.0, "adapted": 30.0 + middle, "difference": middle}
    row |= {"ci_low": low, "ci_high": high, "p": 0.01, "num_items": 40, "num_clusters": 20}
    return row | {"unparsed_base": 0, "unparsed_adapted": 0} | changes


def nodes(
    folder: Path,
    *,
    caption: str = "Three red cells on a pale ground.",
    scores: list[dict[str, Any]] | None = None,
    max_items: int | None = None,
) -> dict[str, Artifact]:
    """Return the artifacts of one arm, by plain node id."""
    digests: list[str] = []

    def collect(outputs: Outputs) -> None:
        from PIL import Image

        with ImageWriter(outputs.path) as writer:
            for number in range(4):
                picture = Image.new("RGB", (200, 120), (60 * number, 90, 160))
                digests.append(writer.add(encode_png(picture)))

    found = {"collect": artifact(folder, "collect", collect)}
    pairs = [pair(digest, caption, Meta(Kind.PAIR, f"row/{digest[:4]}")) for digest in digests]
    tasks = [
        make_record(
            row.images,
            [
                user(ImagePart(0), f"How many cells are there? {caption}"),
                assistant("Three cells lie on a pale ground, so three.", style="informative"),
                assistant("3", style="precise"),
            ],
            Meta(Kind.TASK, row.meta.source_id, lineage=(row.id,)),
        )
        for row in pairs
    ]

    def curate(outputs: Outputs) -> None:
        for row in pairs:
            outputs.rows("pairs").write(row)
        outputs.quarantine("row/9", "near_duplicate: equal picture", "distance 0")

    def generate(outputs: Outputs) -> None:
        for task in tasks:
            outputs.rows("tasks").write(task)
        outputs.count("generated", 4)
        outputs.count("outputs", 5)
        outputs.quarantine("row/8", "no question under a header", f"raw output: {caption}")

    def filter_(outputs: Outputs) -> None:
        notes = {"label": "yes", "score": 0.9312, "remark": caption}
        extra = {"consistency": notes, "task_type": "attribute"}
        kept = replace(tasks[0], meta=replace(tasks[0].meta, extra=extra))
        outputs.rows("kept").write(kept)
        for task, reason in zip(tasks[1:], REASONS, strict=True):
            row = {"record": to_json(task), "filter": "consistency", "reason": reason}
            outputs.rows("dropped").write({**row, "detail": caption})
            outputs.count(f"dropped: consistency: {reason}")

    def mix(outputs: Outputs) -> None:
        outputs.count("part: synthetic", 1)

    def train(outputs: Outputs) -> None:
        outputs.count("rows", 4)
        for step in range(1, 30):
            outputs.rows("losses").write({"step": step, "loss": 5 / step, "learning_rate": 0.1})

    def scored(outputs: Outputs) -> None:
        outputs.write_json("scores.json", scores if scores is not None else default_scores())
        for number, (base, adapted) in enumerate([(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)]):
            outputs.rows("items").write(item(number, digests, base, adapted, caption))

    found["curate"] = artifact(folder, "curate", curate)
    found["generate"] = artifact(folder, "generate", generate)
    filters = {"filters": [{"use": "repetition"}, {"use": "consistency"}]}
    found["filter"] = artifact(folder, "filter", filter_, filters)
    found["mix"] = artifact(folder, "mix", mix)
    found["train"] = artifact(folder, "train", train)
    for model in ("base", "adapted"):
        name = f"evaluate.answers/{model}/cells"
        found[name] = artifact(folder, name, lambda outputs: None, {"max_items": max_items})
    found["evaluate.scores/cells"] = artifact(folder, "evaluate.scores/cells", scored)
    return found


def default_scores() -> list[dict[str, Any]]:
    return [
        score("cells", 12.0, 30.0, metric="mixed", unparsed_base=3, unparsed_adapted=1),
        score("cells", -9.0, 4.0, answer_type="yes_no"),
        score("cells", -19.0, -4.0, answer_type="count"),
    ]


def item(number: int, digests: list[str], base: float, adapted: float, text: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"item{number}", "cluster": digests[0], "answer_type": "count"}
    row |= {"images": [digests[number]], "question": f"How many? {text}", "reference": "3"}
    for model, points in (("base", base), ("adapted", adapted)):
        row |= {model: points, f"{model}_answer": f"{points} {text}"}
        row[f"{model}_parsed"] = None if points == 0 else "3"
    return row
