"""Keep the tasks that the filters let through; what they drop is kept beside, with the reason.

Mended tasks come to a node of their own: what was kept before them is `earlier`, for the filters
that compare a task with those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from engine.artifacts import Artifact, Inputs, Outputs
from engine.plan import journal
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import Family, Use
from engine.records import Record, to_json
from engine.stages import _filtering, _findings
from engine.stages._models import Models


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The filters, in order."""

    filters: tuple[Annotated[Use, Family("filters")], ...]


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `kept` and `dropped`."""
    with Models.of(tools) as models:
        filter_tasks(
            inputs["tasks"],
            inputs["images"],
            models,
            params,
            outputs,
            tools,
            inputs.get("earlier"),
        )


def filter_tasks(
    tasks: Artifact,
    images: Artifact,
    models: Models,
    params: Params,
    outputs: Outputs,
    tools: Tools,
    earlier: Artifact | None = None,
) -> None:
    """Put tasks through the filters, and write what they keep and what they drop."""
    outputs.rows("kept")
    outputs.rows("dropped")
    total, done = tasks.num_rows("tasks"), 0

    def kept_before() -> Iterator[list[Record]]:
        records = earlier.records("kept") if earlier is not None else iter(())
        return journal.cut(records, _filtering.SHARD_ROWS)

    context = _filtering.filter_context([images], {}, tools)
    filters = _filtering.open_filters(params.filters, context, models.get, kept_before)

    def shards() -> Iterator[list[Record]]:
        return journal.cut(tasks.records("tasks"), _filtering.SHARD_ROWS)

    told = _findings.find_out(filters, shards, tools, total, "tasks")
    for number, rows in enumerate(shards()):
        for record, drop in _filtering.apply(filters, number, rows):
            _write(record, drop, outputs)
        done += len(rows)
        tools.progress(max(done, told), total, "tasks")


def _write(record: Record, drop: _filtering.Drop | None, outputs: Outputs) -> None:
    if drop is None:
        outputs.rows("kept").write(record)
        return
    name, verdict = drop
    row = {"record": to_json(record), "filter": name, "reason": verdict.reason}
    outputs.rows("dropped").write({**row, "detail": verdict.detail})
    outputs.count(f"dropped: {name}: {verdict.reason}")


STAGE = Stage(
    name="filter",
    version=1,
    inputs=(
        Port("tasks", reads=("tasks",)),
        Port("images", reads=("images",)),
        Port("earlier", required=False, reads=("kept",)),
    ),
    params=Params,
    needs=Needs(accelerator=True, sharded=True, isolates=True),
    run=run,
)
