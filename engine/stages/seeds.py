"""Makes seed tasks ready for tuning: without benchmarks, and with a share of each task held out.

A seed set may hold what a benchmark asks (VQA-RAD is a task of VisionFLAN): rows of such a task go,
and so do rows that a filter drops, which by default compares pictures. Nothing of the domain is in
what is written: two domains that leave the same rows out share one tuned synthesizer.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from engine.artifacts import Inputs, Outputs
from engine.diagnostics import StageError
from engine.plan import journal
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import Between, Family, Use
from engine.records import Kind, Record
from engine.stages import _filtering, _findings
from engine.stages._models import Models

ROWS, HELD_OUT = "rows", "held_out"
Kept = dict[str, tuple[str, str]]  # id of a row -> its task and its picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What to leave out, and how much to hold out."""

    exclude_tasks: Annotated[tuple[str, ...], "Names of the seed set's tasks to leave out."]
    filters: Annotated[
        tuple[Annotated[Use, Family("filters")], ...], "Filters of seed rows, applied in order."
    ]
    held_out_share: Annotated[float, Between(0, 1), "Share of each task's pictures to hold out."]


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `rows` and `held_out`; raise `StageError` when there is nothing to train on."""
    rows, held_out = outputs.rows(ROWS), outputs.rows(HELD_OUT)
    kept = _kept(inputs, params, outputs, tools)
    chosen = _held_out(kept, params.held_out_share, tools.seed)
    for record in inputs["seed_tasks"].records("rows"):
        if record.id in kept:
            (held_out if record.id in chosen else rows).write(record)
    if not rows.num_rows:
        raise StageError(
            f"no seed task is left to tune the synthesizer on, of {len(kept)} that were kept",
            hint="the ledger of this node says why rows were left out",
        )


def _kept(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> Kept:
    """Return the rows that stay; the others go to the ledger."""
    images, benchmarks = inputs.many("images").values(), inputs.many("benchmarks")
    context = _filtering.filter_context(images, benchmarks, tools)
    excluded = frozenset(params.exclude_tasks)

    def shards() -> Iterator[list[Record]]:
        return journal.cut(inputs["seed_tasks"].records("rows"), _filtering.SHARD_ROWS)

    def seeds_of(shard: list[Record]) -> list[Record]:
        return [record for record in shard if _why_not(record, excluded) is None]

    total, done = inputs["seed_tasks"].num_rows("rows"), 0
    kept: Kept = {}
    with Models.of(tools) as models:
        filters = _filtering.open_filters(params.filters, context, models.get)
        told = _findings.find_out(filters, lambda: map(seeds_of, shards()), tools, total, "rows")
        for number, shard in enumerate(shards()):
            for record in shard:
                why = _why_not(record, excluded)
                if why is not None:
                    outputs.quarantine(record.meta.source_id, *why)
            for record, drop in _filtering.apply(filters, number, seeds_of(shard)):
                if drop is None:
                    kept[record.id] = (_task(record), _picture(record))
                else:
                    name, verdict = drop
                    reason = f"{name}: {verdict.reason}"
                    outputs.quarantine(record.meta.source_id, reason, verdict.detail)
            done += len(shard)
            tools.progress(max(done, told), total, "rows")
    return kept


def _why_not(record: Record, excluded: frozenset[str]) -> tuple[str, str] | None:
    """Return why a row cannot be used, as reason and what was seen; None if it can."""
    if record.meta.kind is not Kind.SEED:
        return "not a seed task", record.meta.kind.value
    found = excluded.intersection(record.meta.extra.get("tasks", ()))
    return ("task of a benchmark", ", ".join(sorted(found))) if found else None


def _picture(record: Record) -> str:
    return record.images[0] if record.images else record.id


def _task(record: Record) -> str:
    """Return the task that a row counts for: the first that its source names, or none."""
    return str(next(iter(record.meta.extra.get("tasks", ())), ""))


def _held_out(kept: Kept, share: float, seed: int) -> set[str]:
    """Return the rows to hold out: so large a share of each task's pictures, drawn by a hash.

    All rows of a picture are on one side; it counts for the task of its first row.
    """
    task_of: dict[str, str] = {}
    for task, picture in kept.values():
        task_of.setdefault(picture, task)
    by_task: dict[str, list[str]] = defaultdict(list)
    for picture, task in task_of.items():
        by_task[task].append(picture)
    chosen: set[str] = set()
    for pictures in by_task.values():
        pictures.sort(key=lambda picture: _position(seed, picture))
        chosen.update(pictures[: round(share * len(pictures))])
    return {id_ for id_, (_, picture) in kept.items() if picture in chosen}


def _position(seed: int, picture: str) -> bytes:
    return hashlib.sha256(f"held out {seed} {picture}".encode()).digest()


STAGE = Stage(
    name="seeds",
    version=1,
    inputs=(
        Port("seed_tasks", reads=("rows",)),
        Port("images", reads=("images",)),
        Port("benchmarks", required=False, many=True, reads=("rows", "images")),
    ),
    params=Params,
    needs=Needs(sharded=True),
    run=run,
)
