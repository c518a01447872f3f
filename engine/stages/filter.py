"""Keep the tasks that the filters let through; what they drop is kept beside, with the reason."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

from engine.artifacts import Inputs, Outputs
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import Family, Use
from engine.records import to_json
from engine.stages import _filtering
from engine.stages._models import lazy_session, text_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The filters, in order."""

    filters: tuple[Annotated[Use, Family("filters")], ...]


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `kept` and `dropped`."""
    outputs.rows("kept")
    outputs.rows("dropped")
    total, done = inputs["tasks"].num_rows("tasks"), 0
    with ExitStack() as stack:
        context = _filtering.filter_context(
            [inputs["images"]],
            {},
            tools,
            lambda use: text_model(use, stack.enter_context(lazy_session(use, tools)), tools),
        )
        opened = _filtering.open_filters(params.filters, context)
        for batch in _filtering.batches(inputs["tasks"].records("tasks")):
            for record, drop in _filtering.apply(opened, batch):
                if drop is None:
                    outputs.rows("kept").write(record)
                else:
                    name, verdict = drop
                    row = {"record": to_json(record), "filter": name, "reason": verdict.reason}
                    outputs.rows("dropped").write({**row, "detail": verdict.detail})
                    outputs.count(f"dropped: {name}: {verdict.reason}")
            done += len(batch)
            tools.progress(done, total, "tasks")


STAGE = Stage(
    name="filter",
    version=1,
    inputs=(Port("tasks", reads=("tasks",)), Port("images", reads=("images",))),
    params=Params,
    needs=Needs(accelerator=True),
    run=run,
)
