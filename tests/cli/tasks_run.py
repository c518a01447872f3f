"""A store with a finished run that has tasks to grade: pictures, captions, kept and dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine import package_data, plugin
from engine.artifacts import Outputs
from engine.images import ImageWriter, encode_png
from engine.plan import keys
from engine.plan.stage import Node, Plan
from engine.recipe.model import PartsSpec
from engine.records import (
    ImagePart,
    Kind,
    Meta,
    Record,
    assistant,
    make_record,
    pair,
    to_json,
    user,
)
from engine.runtime import runs
from engine.runtime.eventlog import EventLog
from engine.runtime.events import RunFinished
from engine.runtime.runs import Run
from engine.runtime.store import Store
from engine.stages import mix


def made(
    store: Store,
    num_kept: int = 6,
    num_dropped: int = 4,
    *,
    text: str = "",
    arms: tuple[str, ...] = ("main",),
    is_repaired: bool = False,
) -> Run:
    """Publish the nodes that tasks come from; `text` goes into every text. An arm has its tasks."""
    nodes: list[Node] = []
    for arm in arms:
        suffix = "" if arm == arms[0] else f"@{arm}"
        nodes += _arm(store, arm, suffix, num_kept, num_dropped, text)
        if is_repaired:
            nodes.append(_repaired(store, nodes[1], arm))
    run = runs.create(store, Plan("mine", tuple(nodes)), {"recipe_path": "mine.yaml"})
    log = EventLog(run.events_path)
    log.append(RunFinished(time=1.0, failed=()))
    log.close()
    return run


def _arm(
    store: Store, arm: str, suffix: str, num_kept: int, num_dropped: int, text: str
) -> list[Node]:
    digests: list[str] = []

    def collect(outputs: Outputs) -> None:
        from PIL import Image

        with ImageWriter(outputs.path) as writer:
            for number in range(num_kept + num_dropped):
                picture = Image.new("RGB", (90, 60), (number * 9 % 256, 90, 160))
                digests.append(writer.add(encode_png(picture)))

    collected = _published(store, f"collect{suffix}", arm, collect)
    pairs = [
        pair(digest, f"caption {number} {arm} {text}", Meta(Kind.PAIR, f"row/{number}"))
        for number, digest in enumerate(digests)
    ]
    tasks = [_task(row, f"{number} {arm} {text}") for number, row in enumerate(pairs)]

    def curate(outputs: Outputs) -> None:
        for row in pairs:
            outputs.rows("pairs").write(row)

    def filter_(outputs: Outputs) -> None:
        outputs.rows("kept")
        outputs.rows("dropped")
        for task in tasks[:num_kept]:
            outputs.rows("kept").write(task)
        for task in tasks[num_kept:]:
            row = {"record": to_json(task), "filter": "consistency", "reason": "secret reason"}
            outputs.rows("dropped").write({**row, "detail": f"secret detail {text}"})

    return [
        collected,
        _published(store, f"curate{suffix}", arm, curate),
        _published(store, f"filter{suffix}", arm, filter_),
        _mix(suffix, arm),
    ]


def _repaired(store: Store, curate: Node, arm: str) -> Node:
    """Publish one kept task that was written again."""
    curated = store.get(curate.key)
    assert curated is not None
    task = _task(next(curated.records("pairs")), "mended")

    def fill(outputs: Outputs) -> None:
        outputs.rows("kept").write(task)
        outputs.rows("dropped")

    return _published(store, "filter/repaired", arm, fill)


def _task(row: Record, text: str) -> Record:
    turns = [
        user(ImagePart(0), f"instruction {text}"),
        assistant(f"informative {text}", style="informative"),
        assistant(f"precise {text}", style="precise"),
    ]
    meta = Meta(Kind.TASK, row.meta.source_id, lineage=(row.id,))
    return make_record(row.images, turns, meta)


def _published(store: Store, name: str, arm: str, fill: Callable[[Outputs], None]) -> Node:
    node = _node(name, arm)
    outputs = Outputs(store.staging(node.key))
    fill(outputs)
    counts = outputs.counts()
    store.publish(node, outputs.path, counts, {})
    return node


def _mix(suffix: str, arm: str) -> Node:
    folder = package_data.folder("prompt_templates")
    params = mix.Params(
        pipeline="single_stage",
        parts=PartsSpec(synthetic=1.0, captions=1.0, replay=0.0),
        order="random",
        answers="combined",
        caption_prompt="caption@1",
        joining="template",
        tasks_per_pair=None,
        paper_code_compat=False,
        combine_prompt="combine@1",
    )
    prompts = {
        f"{name}@1": (folder / name / "v1.j2").read_text("utf-8") for name in ("caption", "combine")
    }
    return _node(f"mix{suffix}", arm, plugin.unbind(params), prompts)


def _node(name: str, arm: str, params: Any = None, prompts: dict[str, str] | None = None) -> Node:
    preimage = {"id": name, "arm": arm}
    stage = name.partition("@")[0]
    return Node(
        id=name,
        stage=stage,
        params=params or {},
        inputs={},
        key=keys.digest(preimage),
        preimage=preimage,
        seed=42,
        prompts=prompts or {},
        origin={},
        arms=(arm,),
    )
