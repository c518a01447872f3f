"""What a model that answers takes: memory at the peak, and hours by theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.forecast import memory
from engine.forecast.devices import DECODING_SHARE, PREFILL_SHARE, Device
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
from engine.models._facts import Architecture
from engine.models._image_tokens import ImageTokens
from engine.models._known import KnownModel
from engine.plan.estimate import Figure

_NO_IMAGE = ImageTokens(0, 0)


class Requests(NamedTuple):
    """What a model is asked, whoever asks."""

    text_tokens: float  # of a prompt
    new_tokens: int
    has_images: bool
    rounds: int = 1  # requests per row


class Shape(NamedTuple):
    """All of the asking but how many rows there are."""

    job: memory.Answering
    peak: Figure
    prompt: float  # tokens, those of the image included
    num_devices: int
    words: str  # what the tokens stand on


def shape_of(
    known: KnownModel, backend: Mapping[str, Any], asked: Requests, device: Device | None
) -> Shape:
    """Return the shape of the asking; `known` has an architecture."""
    image, image_basis = image_tokens(known) if asked.has_images else (_NO_IMAGE, "")
    prompt = asked.text_tokens + image.tokens
    assumed = f"assumed: {asked.text_tokens:,.0f} tokens of text asked"
    words = joined_words(f"{assumed}, {asked.new_tokens} answered", image_basis)
    job = memory.Answering(
        bytes_per_weight=4 if backend.get("dtype") == "float32" else 2,
        batch=int(backend.get("batch_size") or backend.get("max_num_seqs") or 1),
        prompt_tokens=int(prompt),
        new_tokens=asked.new_tokens,
        patches=image.patches,
    )
    num_devices = int(backend.get("tensor_parallel_size") or 1)
    peak = _peak(known, backend, job, num_devices, device)
    return Shape(job, peak, prompt, num_devices, words)


def load_of(
    model: Architecture,
    shape: Shape,
    asked: Requests,
    rows: Figure | None,
    device: Device | None,
) -> Load:
    """Return what answering for these rows takes."""
    tokens = wall = None
    if rows is not None:
        each = asked.rounds * (shape.prompt + asked.new_tokens)
        tokens = Figure(round(rows.value * each), joined_words(rows.basis, shape.words))
        wall = _answering_h(model, shape, rows.value * asked.rounds, device)
    return Load(tokens, shape.peak, wall, num_devices=shape.num_devices)


def _peak(
    known: KnownModel,
    backend: Mapping[str, Any],
    job: memory.Answering,
    num_devices: int,
    device: Device | None,
) -> Figure:
    model = known.architecture
    assert model is not None
    if backend.get("use") != "vllm":
        peak = memory.of_answering(model, job)
        basis = f"{peak.words()} GB; {job.batch} requests at once; {known.basis}"
        return Figure(peak.total / memory.GB, basis)
    longest = min(job.prompt_tokens + job.new_tokens, model.language.context_tokens)
    limit = backend.get("max_model_len") or longest
    cache = limit * memory.cache_per_token(model.language, job.bytes_per_weight)
    weights = job.bytes_per_weight * model.num_parameters
    least = (weights + cache) / num_devices / memory.GB
    needs = f"weights {weights / memory.GB:.2g} + one request of {limit:,} tokens"
    needs += f" {cache / memory.GB:.2g} GB; {known.basis}"
    share = backend.get("gpu_memory_utilization", 0.9)
    if device is None or share * device.memory_gb < least:
        return Figure(least, f"at least: {needs}; vLLM takes {share:.0%} of the device")
    return Figure(share * device.memory_gb, f"vLLM takes {share:.0%} of the device; needs {needs}")


def _answering_h(
    model: Architecture, shape: Shape, requests: float, device: Device | None
) -> Figure | None:
    if device is None or is_too_small(model):
        return None
    job, num_devices = shape.job, shape.num_devices
    rate = device.half_tflops if job.bytes_per_weight == 2 else device.float_tflops
    rate *= TERA * PREFILL_SHARE * num_devices
    seen = 2 * matrices(model) * job.prompt_tokens
    seen += 2.0 * model.counts.get("vision", 0) * job.patches
    at_once = max(min(job.batch, requests), 1)
    cache = memory.cache_per_token(model.language, job.bytes_per_weight)
    moved = job.bytes_per_weight * matrices(model) + at_once * cache * job.prompt_tokens
    steps = requests / at_once * job.new_tokens
    bandwidth = device.bandwidth_gb_s * GIGA * DECODING_SHARE * num_devices
    seconds = requests * seen / rate + steps * moved / bandwidth
    basis = (
        f"reading at {PREFILL_SHARE:.0%} of the peak rate of {device.name}, writing {at_once:,.0f} "
        f"at once at {DECODING_SHARE:.0%} of its bandwidth; {requests:,.0f} requests"
    )
    return Figure(seconds / HOUR_S, basis)
