"""Rows in, model folder out: what the stages `synthesizer` and `train` have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.artifacts import Outputs
from engine.diagnostics import StageError
from engine.models._inputs import InputMaker
from engine.models._loading import ModelKit
from engine.plan.stage import Tools
from engine.records import Record
from engine.training import ranks
from engine.training.job import Job, start
from engine.training.loop import Trainer, save_model
from engine.training.masks import CUT
from engine.training.prepared import Examples, prepare

CACHE_BYTES = 2**30  # of prepared images; those that have no room are prepared when they are used
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"
HELD_OUT_FOLDER = "held-out"


def fit(
    rows: Iterable[Record],
    read_image: Callable[[str], bytes],
    job: Job,
    outputs: Outputs,
    tools: Tools,
    held_out: Iterable[Record] = (),
) -> None:
    """Train on rows; write `model/`, `losses`, counts, and the ledger of rows without use.

    The loss of rows that are held out is told at the end of each epoch, as `held_out_loss`. With
    several devices one process each does the work, and `read_image` must be picklable.
    """
    kit = job.kit()
    inputs = InputMaker(kit, read_image, CACHE_BYTES)
    outputs.rows("losses")
    ready = _examples(rows, inputs, job, outputs, tools.scratch)
    kept_back = _examples(held_out, inputs, job, outputs, tools.scratch / HELD_OUT_FOLDER)
    _tell(ready, kept_back, job, tools)
    device = tools.machine.device
    if ranks.count(job, tools.machine) > 1 and len(ready):
        # They leave a checkpoint after the last step, from which the loop below has nothing to do.
        ranks.train(ranks.Work(job, read_image, ready, kept_back, tools.seed, tools.scratch), tools)
        device = "cpu"  # one device may not hold it
    model = start(kit, job, tools.seed, device)
    trainer = Trainer(model, kit.family, inputs, ready, kept_back, job.training, tools)
    progress = trainer.run()
    for row in progress.losses:
        outputs.rows("losses").write(row)
    outputs.count("rows", len(ready))
    if kept_back:
        outputs.count("rows held out", len(kept_back))
    outputs.count("tokens", sum(row["tokens"] for row in progress.losses))
    outputs.count("steps", progress.step)
    _save(model, kit, job, outputs)


def _examples(
    rows: Iterable[Record], inputs: InputMaker, job: Job, outputs: Outputs, folder: Path
) -> Examples:
    limit = min(job.training.max_length, inputs.kit.context_tokens)
    ready = prepare(rows, inputs, limit, folder)
    for source_id, reason, detail in ready.ledger():
        if reason == CUT:
            outputs.count("rows cut")
        else:
            outputs.quarantine(source_id, reason, detail)
    return ready


def _tell(ready: Examples, held_out: Examples, job: Job, tools: Tools) -> None:
    """Log how many rows there are. Raise StageError if there is none to train on."""
    also = f", {len(held_out)} more are held out" if held_out else ""
    tools.log(f"{len(ready)} of {ready.num_rows} rows are ready for training{also}")
    if not ready and job.training.max_steps != 0:
        raise StageError(
            f"none of {ready.num_rows} rows can be trained on",
            hint="the ledger of this node says why; is `training.max_length` too small?",
        )


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
