"""Write tasks: the generator asks and answers questions about every image-caption pair.

A sampled question is worth asking, a sampled answer is often wrong: with `answer_temperature` both
answers are asked for anew once the question stands, each without sight of the other, so that a
judge of their consistency compares two opinions and not one opinion with its echo. What gives no
task goes to the ledger with the reason and all that was written; whole tasks of the same output are
kept, and the caption of a pair without any stays in the mix. The reference code drops such pairs
whole, and 500 at a time when a request fails (METHOD sections 1.5 and 7).

Every task carries its lineage: pair, caption, model, prompt and the raw output it was read from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine import prompts
from engine.artifacts import Artifact, Inputs, Outputs
from engine.diagnostics import StageError
from engine.images import ImageBank
from engine.plan import journal
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import ModelUse
from engine.records import ImagePart, Kind, Meta, Record, assistant, make_record, user
from engine.stages import _asking, _writing
from engine.stages._models import lazy_session
from engine.stages._writing import CUT, FAILED, Wanted

__all__ = ["CUT", "FAILED", "STAGE", "Params", "run", "write_tasks"]

SHARD_PAIRS = 128  # a kill costs at most this many; never vary it, journals are found by number
UNPARSED = "unparsed"  # row set: the pairs without a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Which generator writes, how it is asked, and about which pairs."""

    generator: ModelUse
    prompt: str
    max_new_tokens: int
    temperature: float  # 0: greedy
    top_p: float
    answer_temperature: float | None  # None: answers are drawn together with their question
    num_tasks: int  # most tasks of a pair
    num_samples: int  # most outputs of a pair
    task_types: Mapping[str, float]  # type -> weight; empty: the model chooses
    row_set: str  # pairs or holdout: a row set of curate


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `tasks`, `unparsed` and the ledger of what gave no task."""
    pairs = inputs["pairs"]
    bank = ImageBank([inputs["images"].path])
    model = inputs.get("model")
    with lazy_session(params.generator, tools, model) as session:
        write_tasks(pairs, bank, session, params, outputs, tools, model)


def write_tasks(
    pairs: Artifact,
    bank: ImageBank,
    session: _asking.Runner,
    params: Params,
    outputs: Outputs,
    tools: Tools,
    model: Artifact | None = None,
) -> None:
    """Ask the session about every pair, and write what it gives as tasks or ledger rows.

    Raise StageError if no request is answered.
    """
    template = tools.prompts[params.prompt]
    wanted = _wanted(params, template, tools.seed)
    lineage = _lineage(params, template, model)
    num_pairs = pairs.num_rows(params.row_set)
    outputs.rows("tasks")
    outputs.rows(UNPARSED)
    outputs.count("num_pairs", num_pairs)
    for name in ("outputs", "generated"):
        outputs.count(name, 0)

    def batches() -> Iterator[list[Record]]:
        return journal.cut(pairs.records(params.row_set), SHARD_PAIRS)

    answered, first_failure = 0, None
    done = _asking.ask(
        session,
        tools,
        "generate",
        batches,
        lambda pair: _writing.flow(pair, bank, wanted),
        "pairs",
        num_pairs,
    )
    for shard, rows in done:
        for pair, row in zip(shard, rows, strict=True):
            _write(pair, row, lineage, outputs)
            failed = [one["detail"] for one in row["failures"] if one["reason"] == FAILED]
            answered += bool(row["tasks"]) or len(failed) < len(row["failures"])
            first_failure = first_failure or next(iter(failed), None)
    if num_pairs and not answered:
        raise StageError(f"every request to the synthesizer failed; the first: {first_failure}")


def _wanted(params: Params, template: str, seed: int) -> Wanted:
    return Wanted(
        template=template,
        num_tasks=params.num_tasks,
        num_samples=params.num_samples,
        max_new_tokens=params.max_new_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        answer_temperature=params.answer_temperature,
        task_types=params.task_types,
        seed=seed,
    )


def _lineage(params: Params, template: str, model: Artifact | None) -> dict[str, Any]:
    """Return what all tasks of this node have in common: who wrote them, asked how."""
    use = params.generator
    by: dict[str, Any] = {"model": use.model, "prompt": prompts.digest(template)}
    if use.revision is not None:
        by["revision"] = use.revision
    if use.adapter is not None:
        by["adapter"] = use.adapter.model
        if use.adapter.revision is not None:
            by["adapter_revision"] = use.adapter.revision
    if model is not None:
        by["tuned"] = model.manifest.content_digest
    return by


def _write(
    pair: Record, row: Mapping[str, Any], lineage: Mapping[str, Any], outputs: Outputs
) -> None:
    outputs.count("outputs", row["num_outputs"])
    outputs.count("generated", row["num_texts"] > 0)
    for failure in row["failures"]:
        outputs.quarantine(pair.meta.source_id, failure["reason"], failure["detail"])
    for task in row["tasks"]:
        outputs.rows("tasks").write(_task(pair, task, lineage))
    if not row["tasks"]:
        outputs.rows(UNPARSED).write({"pair": pair.id, "source_id": pair.meta.source_id})


def _task(pair: Record, task: Mapping[str, Any], lineage: Mapping[str, Any]) -> Record:
    turns = (
        user(*(ImagePart(number) for number in range(len(pair.images))), task["instruction"]),
        assistant(task["informative"], style="informative"),
        assistant(task["precise"], style="precise"),
    )
    generated = {**lineage, "draw": task["draw"], "raw": task["raw"]}
    extra = {**pair.meta.extra, "caption": pair.caption, "generated": generated}
    if "task_type" in task:
        extra["task_type"] = task["task_type"]
    meta = Meta(Kind.TASK, pair.meta.source_id, pair.meta.licence, (pair.id,), extra)
    return make_record(pair.images, turns, meta)


STAGE = Stage(
    name="generate",
    version=5,
    inputs=(
        Port("pairs", reads=("{row_set}",)),
        Port("images", reads=("images",)),
        Port("model", required=False, reads=("model",)),
    ),
    params=Params,
    needs=Needs(accelerator=True, sharded=True, isolates=True),
    run=run,
)
