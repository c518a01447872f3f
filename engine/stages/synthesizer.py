"""Tune the synthesizer on seed tasks: it learns to ask and to answer about image and caption.

A share of the rows shows a blank image, so that the caption is read as well (METHOD 1.2).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine import images
from engine.artifacts import Inputs, Outputs
from engine.images import ImageBank
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.recipe.model import TrainSpec
from engine.records import Kind, Record, RecordError

BLANK = "blank/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The model to tune, the wording of its dialogue, and how it is trained."""

    model: str
    revision: str | None
    trust_remote_code: bool
    prompt: str
    blank_ratio: float
    train: tuple[str, ...]
    training: TrainSpec


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `model/` and `losses`."""
    from engine.training.fit import fit
    from engine.training.job import Job

    bank = ImageBank([inputs["seed_tasks"].path])
    job = Job(
        name=params.model,
        model=tools.locate_model(params.model),
        revision=params.revision,
        trust_remote_code=params.trust_remote_code,
        starts_random=False,
        parts=params.train,
        lora=None,
        training=params.training,
    )
    fit(chats(inputs, params, outputs, tools), WithBlanks(bank), job, outputs, tools)


def chats(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> Iterator[Record]:
    """Yield the training chats of the seed tasks; rows of another layout go to the ledger."""
    from engine.training import dialogue

    template = tools.prompts[params.prompt]
    for seed in inputs["seed_tasks"].records("rows"):
        draw = random.Random(f"{tools.seed}/{seed.id}")
        if seed.meta.kind is not Kind.SEED:
            outputs.quarantine(seed.meta.source_id, "not a seed task", seed.meta.kind.value)
            continue
        is_blank = draw.random() < params.blank_ratio
        try:
            chat = dialogue.seed_chat(seed, template, draw)
        except RecordError as error:
            outputs.quarantine(seed.meta.source_id, "not a seed task", str(error))
            continue
        if is_blank:
            outputs.count("blank images", len(chat.images))
            chat = replace(chat, images=tuple(BLANK + digest for digest in chat.images))
        yield chat


@dataclass(frozen=True, slots=True)
class WithBlanks:
    """Reads images, in any process; `blank/<digest>` is a white one as large as that image."""

    bank: ImageBank

    def __call__(self, name: str) -> bytes:
        """Return the encoded bytes."""
        if not name.startswith(BLANK):
            return self.bank.encoded(name)
        from PIL import Image

        picture = images.decode(self.bank.encoded(name.removeprefix(BLANK)))
        return images.encode_png(Image.new("RGB", picture.size, "white"))


STAGE = Stage(
    name="synthesizer",
    version=2,
    inputs=(Port("seed_tasks", reads=("rows", "images")),),
    params=Params,
    needs=Needs(accelerator=True, all_threads=True),
    run=run,
)
