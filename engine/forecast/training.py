"""What training takes: memory at the peak, hours by theory, weights on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.forecast import memory
from engine.forecast.devices import TRAINING_SHARE, Device
from engine.forecast.load import (
    GIGA,
    HOUR_S,
    TERA,
    Load,
    image_tokens,
    is_too_small,
    joined_words,
    matrices,
)
from engine.models._facts import PARTS, Architecture
from engine.models._image_tokens import ImageTokens
from engine.models._known import KnownModel
from engine.plan.estimate import Figure

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Shape(NamedTuple):
    """All of a training but its rows: many arms of a matrix have the same."""

    job: memory.Training
    peak: Figure
    weights: Figure
    image: ImageTokens
    image_basis: str


def shape_of(known: KnownModel, params: Mapping[str, Any], device: Device | None) -> Shape:
    """Return the shape of a training; `known` has an architecture."""
    model = known.architecture
    assert model is not None
    spec = params["training"]
    image, image_basis = image_tokens(known)
    job = _fitted(model, _job(known, params, spec, image), spec, device)
    peak = memory.of_training(model, job)
    rows = f"{job.micro_batch} row{'s' * (job.micro_batch > 1)} at once"
    basis = f"{peak.words()} GB; {rows}, of {job.tokens:,} tokens at most; {known.basis}"
    figure = Figure(peak.total / memory.GB, basis)
    return Shape(job, figure, _weights_on_disk(model, job), image, image_basis)


def load_of(
    model: Architecture,
    shape: Shape,
    read: Figure | None,
    row_tokens: Figure | None,
    max_length: int,
    device: Device | None,
) -> Load:
    """Return what a training on these rows takes; `read` counts them in all epochs."""
    tokens = wall = None
    if read is not None and row_tokens is not None:
        per_row = min(row_tokens.value + shape.image.tokens, max_length)
        words = (f"{read.value:,.0f} rows read", row_tokens.basis, shape.image_basis)
        tokens = Figure(round(read.value * per_row), joined_words(*words))
        wall = _training_h(model, shape.job, tokens, read, shape.image.patches, device)
    return Load(tokens, shape.peak, wall, shape.weights)


def _job(
    known: KnownModel,
    params: Mapping[str, Any],
    spec: Mapping[str, Any],
    image: ImageTokens,
) -> memory.Training:
    """Return the peak's ingredients: the longest row there can be, with the largest image in it."""
    model = known.architecture
    assert model is not None
    longest = min(spec["max_length"], model.language.context_tokens)
    patches = image.patches
    if not known.has_fixed_images:
        most = known.largest_image
        share = min(1.0, longest / max(most.tokens, 1))
        patches = int(most.patches * share)
    lora = params["lora"] if params.get("method") == "lora" else None
    return memory.Training(
        parts=tuple(part for part in params["train"] if part in PARTS),
        lora_rank=lora["rank"] if lora else 0,
        lora_targets=tuple(lora["targets"]) if lora else (),
        is_half=memory.trains_in_half(model, spec["precision"], is_gpu=True),
        has_checkpoints=spec["gradient_checkpointing"],
        tokens=longest,
        patches=patches,
    )


def _fitted(
    model: Architecture, job: memory.Training, spec: Mapping[str, Any], device: Device | None
) -> memory.Training:
    """Choose the micro-batch as the loop does: the whole batch, halved until it fits."""
    whole = spec["global_batch_size"]
    rows = min(spec["per_device_train_batch_size"] or (whole if device else 1), whole)
    while True:
        found = job._replace(micro_batch=rows, accumulates=rows < whole)
        if rows == 1 or device is None:
            return found
        if memory.of_training(model, found).total <= device.memory_gb * memory.GB:
            return found
        rows //= 2


def _training_h(
    model: Architecture,
    job: memory.Training,
    tokens: Figure,
    read: Figure,
    patches: int,
    device: Device | None,
) -> Figure | None:
    if device is None or is_too_small(model):
        return None
    rate = (device.half_tflops if job.is_half else device.float_tflops) * TERA * TRAINING_SHARE
    again = 1 if job.has_checkpoints else 0
    learns = {part: part in job.parts and not job.lora_rank for part in PARTS}
    language = matrices(model) * tokens.value * (2 + again + learns["language"])
    context = tokens.value / max(read.value, 1)
    text = model.language
    attention = 2 * text.num_layers * text.num_heads * text.head_dim * context * tokens.value
    vision = 0.0
    if model.vision is not None:
        passes = (2 + again + learns["vision"]) if "vision" in job.parts else 1
        vision = float(model.counts["vision"]) * patches * read.value * passes
    operations = 2 * (language + vision) + attention * (2 + again + 1)
    basis = f"{operations:.2g} operations at {TRAINING_SHARE:.0%} of the peak rate of {device.name}"
    return Figure(operations / rate / HOUR_S, f"{basis}; {tokens.value:,.0f} tokens")


def _weights_on_disk(model: Architecture, job: memory.Training) -> Figure:
    adapters = 4 * memory.num_learning(model, job) if job.lora_rank else 0
    return weights_on_disk(model, adapters)


def weights_on_disk(model: Architecture, beside_them: int = 0) -> Figure:
    """Return what a written model takes, with so many bytes beside its weights."""
    size = _BYTES.get(model.dtype, 4) * model.num_parameters + beside_them
    return Figure(size / GIGA, f"weights in {model.dtype}")
