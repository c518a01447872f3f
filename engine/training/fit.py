"""Rows in, model folder out: what the stages `synthesizer` and `train` have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts import Outputs
from engine.diagnostics import StageError
from engine.models._inputs import InputMaker
from engine.models._loading import ModelKit, load_weights, open_kit, random_weights
from engine.plan.stage import Tools
from engine.recipe.model import LoraSpec, TrainSpec
from engine.records import Record
from engine.training import parts
from engine.training.loop import Trainer, save_model
from engine.training.masks import CUT
from engine.training.prepared import Examples, prepare

CACHE_BYTES = 2**30  # of prepared images; those that have no room are prepared when they are used
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train, and how."""

    name: str  # the model as the recipe writes it
    model: str  # folder or hub id
    revision: str | None
    trust_remote_code: bool
    starts_random: bool  # from the config alone
    parts: tuple[str, ...]
    lora: LoraSpec | None  # None: full fine-tuning
    training: TrainSpec


def fit(
    rows: Iterable[Record],
    read_image: Callable[[str], bytes],
    job: Job,
    outputs: Outputs,
    tools: Tools,
) -> None:
    """Train on rows; write `model/`, `losses`, counts, and the ledger of rows without use."""
    kit = open_kit(job.model, job.revision, job.trust_remote_code)
    inputs = InputMaker(kit, read_image, CACHE_BYTES)
    outputs.rows("losses")
    ready = _examples(rows, inputs, job, outputs, tools)
    model = _start(kit, job, tools)
    trainer = Trainer(model, kit.family, inputs, ready, job.training, tools)
    progress = trainer.run()
    for row in progress.losses:
        outputs.rows("losses").write(row)
    outputs.count("rows", len(ready))
    outputs.count("tokens", sum(row["tokens"] for row in progress.losses))
    outputs.count("steps", progress.step)
    _save(model, kit, job, outputs)


def _examples(
    rows: Iterable[Record], inputs: InputMaker, job: Job, outputs: Outputs, tools: Tools
) -> Examples:
    limit = min(job.training.max_length, inputs.kit.context_tokens)
    ready = prepare(rows, inputs, limit, tools.scratch)
    for source_id, reason, detail in ready.ledger():
        if reason == CUT:
            outputs.count("rows cut")
        else:
            outputs.quarantine(source_id, reason, detail)
    tools.log(f"{len(ready)} of {ready.num_rows} rows are ready for training")
    if not ready and job.training.max_steps != 0:
        raise StageError(
            f"none of {ready.num_rows} rows can be trained on",
            hint="the ledger of this node says why; is `training.max_length` too small?",
        )
    return ready


def _start(kit: ModelKit, job: Job, tools: Tools) -> Any:
    """Return the model before its first step, in float32, with the right parameters free."""
    import torch

    device = tools.machine.device
    if job.starts_random:
        model = random_weights(kit, seed=tools.seed, device=device)
    else:
        model = load_weights(kit, dtype=torch.float32, device=device)
    if job.lora is None:
        parts.freeze(model, kit.family, job.parts)
        return model
    return parts.with_lora(model, kit.family, job.parts, job.lora, tools.seed)


def _save(model: Any, kit: ModelKit, job: Job, outputs: Outputs) -> None:
    import torch

    if job.lora is not None:
        _save_adapter(model, job, outputs.file(ADAPTER_FOLDER))
        model = model.merge_and_unload()
    stored = getattr(kit.config, "dtype", None)
    dtype = stored if isinstance(stored, torch.dtype) else torch.float32
    save_model(model, kit, outputs.file(MODEL_FOLDER), dtype)


def _save_adapter(model: Any, job: Job, folder: Path) -> None:
    """Save an adapter so that equal trainings leave equal files, whatever the machine."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form that holds a path of the machine
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = job.name
    config["target_modules"] = sorted(config["target_modules"])  # in the order of a set
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
