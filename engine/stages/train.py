"""Train the base on the mix: full or low-rank, from pretrained or random weights."""

from __future__ import annotations

from dataclasses import dataclass

from engine.artifacts import Inputs, Outputs
from engine.images import ImageBank
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.recipe.model import LoraSpec, TrainSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The base, how it is trained, and on which rows of the mix."""

    model: str
    revision: str | None
    trust_remote_code: bool
    weights: str  # pretrained or random
    method: str  # full or lora
    train: tuple[str, ...]  # of vision, projector, language
    lora: LoraSpec
    training: TrainSpec
    row_set: str


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `model/` and `losses`; an earlier node's model is the start when there is one."""
    from engine.training.fit import MODEL_FOLDER, fit
    from engine.training.job import Job

    earlier = inputs.get("model")
    bank = ImageBank(artifact.path for artifact in inputs.many("images").values())
    job = Job(
        name=params.model,
        model=str(earlier.file(MODEL_FOLDER)) if earlier else tools.locate_model(params.model),
        revision=None if earlier else params.revision,
        trust_remote_code=params.trust_remote_code,
        starts_random=params.weights == "random" and earlier is None,
        parts=params.train,
        lora=params.lora if params.method == "lora" else None,
        training=params.training,
    )
    rows = inputs["rows"].records(params.row_set) if inputs.get("rows") else ()
    fit(rows, bank.encoded, job, outputs, tools)


STAGE = Stage(
    name="train",
    version=2,
    inputs=(
        Port("rows", required=False, reads=("{row_set}",)),
        Port("images", many=True, reads=("images",)),
        Port("model", required=False, reads=("model",)),
    ),
    params=Params,
    needs=Needs(accelerator=True, all_threads=True),
    run=run,
)
