"""What a node asks of a device: memory at its peak, hours, tokens; and what it leaves on the disk.

Hours are theory: operations over an assumed share of the device's rate, bytes over one of its
bandwidth. The rooms that own the real loops are engine/training and engine/backends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.forecast import flow, memory
from engine.forecast.devices import DECODING_SHARE, PREFILL_SHARE, TRAINING_SHARE, Device
from engine.forecast.flow import NOTHING, Inputs, Made
from engine.models import _image_tokens
from engine.models._facts import PARTS, Architecture
from engine.models._known import KnownModel, ModelFinder
from engine.plan.estimate import Figure
from engine.plan.stage import Node

TYPICAL_PX = (640, 480)
SMALLEST_FOR_THEORY = 100_000_000  # parameters: smaller models wait for kernels, not for arithmetic
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_TERA, _GIGA, _HOUR_S = 1e12, 1e9, 3600.0
_CHARS_PER_TOKEN = 4.0


class Load(NamedTuple):
    """What one node takes; None where nothing is known."""

    tokens: Figure | None = None
    gpu_memory_gb: Figure | None = None
    wall_h: Figure | None = None
    disk_gb: Figure | None = None
    num_devices: int = 1
    note: str = ""


IDLE = Load()


class Workshop:
    """Finds models and remembers what was worked out: many nodes of a matrix are alike."""

    def __init__(self, models: ModelFinder, device: Device | None = None) -> None:
        self.models = models
        self.device = device
        self._memo: dict[Any, Load] = {}

    def load(self, node: Node, made: Made, inputs: Inputs) -> Load:
        """Return what a node takes."""
        if node.stage in ("train", "synthesizer"):
            return self._training(node, made)
        if node.stage == "filter":
            return self._judging(node, inputs)
        if node.stage in ("generate", "evaluate.answers"):
            return self._answering(node, made, inputs)
        return IDLE

    def _training(self, node: Node, made: Made) -> Load:
        params, spec = node.params, node.params["training"]
        model = self.models.find(params["model"], params["revision"])
        if model is None or model.architecture is None:
            return Load(note=_unknown(params["model"], model))
        read = made.get("read")
        lora = params["lora"] if params.get("method") == "lora" else None
        shape = (
            params["model"],
            params["revision"],
            tuple(params["train"]),
            (lora["rank"], tuple(lora["targets"])) if lora else None,
            spec["precision"],
            spec["gradient_checkpointing"],
            spec["global_batch_size"],
            spec["per_device_train_batch_size"],
            spec["max_length"],
        )
        rows = (read.value, read.basis) if read else None
        text = made.row_tokens.value if made.row_tokens else None
        key = (shape, rows, text)
        if key not in self._memo:
            self._memo[key] = _train_load(model, node, made, self.device)
        return self._memo[key]

    def _judging(self, node: Node, inputs: Inputs) -> Load:
        tasks = inputs.get("tasks", NOTHING).get("tasks")
        found = IDLE
        for use in node.params["filters"]:
            judge = use.get("judge")
            if isinstance(judge, Mapping):
                text = len(node.prompts.get(use.get("prompt", ""), "")) / _CHARS_PER_TOKEN
                asked = _Asked(tasks, text + flow.TASK_TOKENS, use.get("max_new_tokens", 4), False)
                found = _joined(found, self._asking(judge, asked))
        return found

    def _answering(self, node: Node, made: Made, inputs: Inputs) -> Load:
        params = node.params
        if node.stage == "generate":
            pairs = inputs.get("pairs", NOTHING).get(params["row_set"])
            new = min(params["max_new_tokens"], flow.WRITTEN_TASK_TOKENS)
            asked = _Asked(pairs, flow.CAPTION_TOKENS + 2 * flow.TURN_TOKENS, new, True)
            if params["answer_temperature"] is not None:
                asked = _Asked(pairs, asked.text_tokens, new, True, rounds=3)
            return self._asking(params["generator"], asked)
        new = min(params["max_new_tokens"], flow.WRITTEN_ANSWER_TOKENS)
        asked = _Asked(made.get("answers"), 4 * flow.TURN_TOKENS, new, True)
        return self._asking(params["model"], asked)

    def _asking(self, use: Mapping[str, Any], asked: _Asked) -> Load:
        model = self.models.find(use["model"], use["revision"])
        if model is None or model.architecture is None:
            return Load(note=_unknown(use["model"], model))
        rows = (asked.rows.value, asked.rows.basis) if asked.rows else None
        backend = tuple(sorted((k, str(v)) for k, v in use["backend"].items()))
        shape = (asked.text_tokens, asked.new_tokens, asked.rounds, asked.has_images)
        key = (use["model"], use["revision"], backend, rows, shape)
        if key not in self._memo:
            self._memo[key] = _answer_load(model, use["backend"], asked, self.device)
        return self._memo[key]


class _Asked(NamedTuple):
    """Requests to a model."""

    rows: Figure | None
    text_tokens: float  # of a prompt
    new_tokens: int
    has_images: bool
    rounds: int = 1  # requests per row


def _unknown(name: str, model: KnownModel | None) -> str:
    if model is None:
        return f"unknown model `{name}`: no config of it is on this machine"
    return f"unknown model `{name}`: no formula for the type `{model.kind}`"


def image_tokens(model: KnownModel) -> tuple[_image_tokens.ImageTokens, str]:
    """Return what an image takes in this model, and on what assumption."""
    assert model.architecture is not None
    found = _image_tokens.of_image(model.architecture, model.processor, *TYPICAL_PX)
    if model.architecture.vision is None or _is_fixed(model):
        return found, f"{found.tokens} tokens an image" if found.tokens else ""
    wide, high = TYPICAL_PX
    return found, f"assumed: images of {wide} x {high}, {found.tokens:,} tokens each"


def _is_fixed(model: KnownModel) -> bool:
    assert model.architecture is not None
    return _image_tokens.is_fixed(model.architecture, model.processor)


def _train_load(known: KnownModel, node: Node, made: Made, device: Device | None) -> Load:
    model = known.architecture
    assert model is not None
    spec, params = node.params["training"], node.params
    image, image_basis = image_tokens(known)
    tokens = None
    read = made.get("read")
    if read is not None and made.row_tokens is not None:
        per_row = min(made.row_tokens.value + image.tokens, spec["max_length"])
        read_rows = f"{read.value:,.0f} rows read"
        parts = (read_rows, made.row_tokens.basis, image_basis)
        tokens = Figure(round(read.value * per_row), "; ".join(part for part in parts if part))
    job = _job(known, params, spec, image)
    job = _fitted(model, job, spec, device)
    peak = memory.of_training(model, job)
    rows = f"{job.micro_batch} row{'s' * (job.micro_batch > 1)} at once"
    basis = f"{peak.words()} GB; {rows}, of {job.tokens:,} tokens at most; {known.basis}"
    wall = _training_h(model, job, tokens, read, image.patches, device)
    return Load(
        tokens=tokens,
        gpu_memory_gb=Figure(peak.total / memory.GB, basis),
        wall_h=wall,
        disk_gb=_weights_on_disk(model, job),
    )


def _job(
    known: KnownModel,
    params: Mapping[str, Any],
    spec: Mapping[str, Any],
    image: _image_tokens.ImageTokens,
) -> memory.Training:
    """Return the peak's ingredients: the longest row there can be, with the largest image in it."""
    model = known.architecture
    assert model is not None
    longest = min(spec["max_length"], model.language.context_tokens)
    patches = image.patches
    if model.vision is not None and not _is_fixed(known):
        most = _image_tokens.most(model, known.processor)
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
    tokens: Figure | None,
    read: Figure | None,
    patches: int,
    device: Device | None,
) -> Figure | None:
    if device is None or tokens is None or read is None or _is_too_small(model):
        return None
    rate = (device.half_tflops if job.is_half else device.float_tflops) * _TERA * TRAINING_SHARE
    again = 1 if job.has_checkpoints else 0
    learns = {part: part in job.parts and not job.lora_rank for part in PARTS}
    language = _matrices(model) * tokens.value * (2 + again + learns["language"])
    context = tokens.value / max(read.value, 1)
    text = model.language
    attention = 2 * text.num_layers * text.num_heads * text.head_dim * context * tokens.value
    vision = 0.0
    if model.vision is not None:
        passes = (2 + again + learns["vision"]) if "vision" in job.parts else 1
        vision = float(model.counts["vision"]) * patches * read.value * passes
    operations = 2 * (language + vision) + attention * (2 + again + 1)
    basis = f"{operations:.2g} operations at {TRAINING_SHARE:.0%} of the peak rate of {device.name}"
    return Figure(operations / rate / _HOUR_S, f"{basis}; {tokens.value:,.0f} tokens")


def _matrices(model: Architecture) -> float:
    """Return the parameters that a token is multiplied with: all but an embedding of its own."""
    text = model.language
    table = 0 if text.is_tied else text.vocab * text.width
    return float(model.counts["language"] - table + model.counts.get("projector", 0))


def _is_too_small(model: Architecture) -> bool:
    return model.num_parameters < SMALLEST_FOR_THEORY


def _weights_on_disk(model: Architecture, job: memory.Training) -> Figure:
    each = _BYTES.get(model.dtype, 4)
    size = each * model.num_parameters
    if job.lora_rank:
        size += 4 * memory.num_learning(model, job)
    return Figure(size / _GIGA, f"weights in {model.dtype}")


def _answer_load(
    known: KnownModel, backend: Mapping[str, Any], asked: _Asked, device: Device | None
) -> Load:
    model = known.architecture
    assert model is not None
    image, image_basis = image_tokens(known) if asked.has_images else (_NO_IMAGE, "")
    prompt = asked.text_tokens + image.tokens
    tokens = None
    if asked.rows is not None:
        each = asked.rounds * (prompt + asked.new_tokens)
        assumed = f"assumed: {asked.text_tokens:,.0f} tokens of text asked"
        assumed += f", {asked.new_tokens} answered"
        parts = (asked.rows.basis, assumed, image_basis)
        tokens = Figure(round(asked.rows.value * each), "; ".join(part for part in parts if part))
    size = 4 if backend.get("dtype") == "float32" else 2
    job = memory.Answering(
        bytes_per_weight=size,
        batch=int(backend.get("batch_size") or backend.get("max_num_seqs") or 1),
        prompt_tokens=int(prompt),
        new_tokens=asked.new_tokens,
        patches=image.patches,
    )
    num_devices = int(backend.get("tensor_parallel_size") or 1)
    return Load(
        tokens=tokens,
        gpu_memory_gb=_answering_gb(known, backend, job, num_devices, device),
        wall_h=_answering_h(model, job, asked, num_devices, device),
        num_devices=num_devices,
    )


_NO_IMAGE = _image_tokens.ImageTokens(0, 0)


def _answering_gb(
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
    limit = backend.get("max_model_len") or model.language.context_tokens
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
    model: Architecture,
    job: memory.Answering,
    asked: _Asked,
    num_devices: int,
    device: Device | None,
) -> Figure | None:
    if device is None or asked.rows is None or _is_too_small(model):
        return None
    requests = asked.rows.value * asked.rounds
    rate = device.half_tflops if job.bytes_per_weight == 2 else device.float_tflops
    rate *= _TERA * PREFILL_SHARE * num_devices
    seen = 2 * _matrices(model) * job.prompt_tokens
    seen += 2.0 * model.counts.get("vision", 0) * job.patches
    at_once = max(min(job.batch, requests), 1)
    cache = memory.cache_per_token(model.language, job.bytes_per_weight)
    moved = job.bytes_per_weight * _matrices(model) + at_once * cache * job.prompt_tokens
    steps = requests / at_once * job.new_tokens
    bandwidth = device.bandwidth_gb_s * _GIGA * DECODING_SHARE * num_devices
    seconds = requests * seen / rate + steps * moved / bandwidth
    basis = (
        f"reading at {PREFILL_SHARE:.0%} of the peak rate of {device.name}, writing {at_once:,.0f} "
        f"at once at {DECODING_SHARE:.0%} of its bandwidth; {requests:,.0f} requests"
    )
    return Figure(seconds / _HOUR_S, basis)


def _joined(one: Load, other: Load) -> Load:
    """Return the loads of two models of one node: the larger peak, the sum of the rest."""
    if one is IDLE:
        return other
    peaks = [load.gpu_memory_gb for load in (one, other) if load.gpu_memory_gb]
    return Load(
        tokens=_sum(one.tokens, other.tokens),
        gpu_memory_gb=max(peaks, key=lambda peak: peak.value, default=None),
        wall_h=_sum(one.wall_h, other.wall_h),
        num_devices=max(one.num_devices, other.num_devices),
        note=one.note or other.note,
    )


def _sum(one: Figure | None, other: Figure | None) -> Figure | None:
    if one is None or other is None:
        return None
    return Figure(one.value + other.value, f"{one.basis}; {other.basis}")
