"""Tune the synthesizer on seed tasks: it learns to ask and to answer about image and caption.

A share of the rows shows a blank image, so that the caption is read as well (METHOD 1.2).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from engine import images
from engine.artifacts import Inputs, Outputs
from engine.images import ImageBank
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.recipe.model import TrainSpec
from engine.records import Record, RecordError
from engine.stages import seeds

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
    """Write `model/` and `losses`; those of held-out rows are `held_out_loss`."""
    from engine.training.fit import fit
    from engine.training.job import Job

    bank = ImageBank(artifact.path for artifact in inputs.many("images").values())
    converted = inputs.get("model")
    job = Job(
        name=params.model,
        model=str(converted.file("model")) if converted else tools.locate_model(params.model),
        revision=None if converted else params.revision,
        trust_remote_code=params.trust_remote_code,
        starts_random=False,
        parts=params.train,
        lora=None,
        training=params.training,
    )
    rows, held_out = (
        chats(inputs["seed_tasks"].records(name), params, outputs, tools)
        for name in (seeds.ROWS, seeds.HELD_OUT)
    )
    fit(rows, WithBlanks(bank), job, outputs, tools, held_out)


def chats(
    records: Iterable[Record], params: Params, outputs: Outputs, tools: Tools
) -> Iterator[Record]:
    """Yield the chats of seed tasks; rows of another layout go to the ledger."""
    from engine.training import dialogue

    template = tools.prompts[params.prompt]
    for seed in records:
        draw = random.Random(f"{tools.seed}/{seed.id}")
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
    version=3,
    inputs=(
        Port("seed_tasks", reads=(seeds.ROWS, seeds.HELD_OUT)),
        Port("images", reads=("images",)),
        Port("model", required=False, reads=("model",)),
    ),
    params=Params,
    needs=Needs(accelerator=True, all_threads=True),
    run=run,
)
