"""Write a checkpoint of another layout anew, so that transformers and vLLM can load it.

The original LLaVA layout leaves the vision tower out when it was not tuned; the tower is a model of
its own then, with its own pin. Of a hub's files only what is read is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.artifacts import Inputs, Outputs
from engine.plan.stage import Needs, Stage, Tools
from engine.recipe.model import TowerSpec

MODEL_FOLDER = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The checkpoint, its layout, and what it sees with."""

    model: str
    revision: str | None
    layout: str  # llava
    vision_tower: TowerSpec


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `model/`."""
    from engine.conversion import files, llava
    from engine.conversion.settings import Tower

    model = files.checkpoint(tools.locate_model(params.model), params.revision)
    named = params.vision_tower
    tower = files.tower(
        tools.locate_model(named.model),
        named.revision,
        needs_weights=not llava.has_own_tower(model),
    )
    into = outputs.file(MODEL_FOLDER)
    written = llava.convert(
        model,
        Tower(named.model, tower),
        into,
        lambda done, total: tools.progress(done, total, "tensors"),
    )
    outputs.count("bytes", written.num_bytes)
    outputs.count("new rows", written.num_new_rows)
    where = "the checkpoint" if written.has_own_tower else f"`{named.model}`"
    tools.log(f"the vision tower's weights are those of {where}")


STAGE = Stage(
    name="convert",
    version=1,
    inputs=(),
    params=Params,
    needs=Needs(),
    run=run,
)
