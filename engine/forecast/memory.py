"""Peak device memory of training and answering, from an architecture alone.

Training follows engine/training/loop.py: float32 weights, gradients and AdamW moments, bfloat16
autocast on a GPU for all but small models, activations as autograd keeps them for the modules of
transformers 5.19. Answering follows engine/backends. What was measured against it, and how far off
it was: tests/bench/README.md.

Letters in comments: H width, A width of all heads, K width of all key-value heads, M width of the
MLP, V vocabulary, T tokens of a micro-batch, P image patches of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engine.models._facts import PARTS, Architecture, Language, Vision

GB = 1e9
_FLOAT, _HALF = 4, 2
_HALF_FROM = 100_000_000  # parameters: engine/training/loop.py LARGE_MODEL_PARAMETERS
_LOGIT_COPIES = 3  # float32 logits, their log-softmax and its gradient live at one time
_ALL_LINEAR = "all-linear"
_LANGUAGE_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Peak(NamedTuple):
    """Bytes at the peak by what they are for."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Return all bytes."""
        return sum(self.parts.values())

    def words(self) -> str:
        """Return the parts that matter in gigabytes, the largest first."""
        ordered = sorted(self.parts.items(), key=lambda part: -part[1])
        shown = [f"{name} {size / GB:.2g}" for name, size in ordered if size > self.total / 100]
        return " + ".join(shown)


class Training(NamedTuple):
    """What decides the peak of a training run."""

    parts: tuple[str, ...] = PARTS
    lora_rank: int = 0  # 0: every weight of the parts
    lora_targets: tuple[str, ...] = (_ALL_LINEAR,)
    is_half: bool = False
    has_checkpoints: bool = False  # gradient checkpointing
    micro_batch: int = 1
    accumulates: bool = True  # an optimizer step has several micro-batches
    tokens: int = 0  # of one row
    patches: int = 0  # of the images of one row


def trains_in_half(model: Architecture, precision: str, *, is_gpu: bool) -> bool:
    """Tell whether the loop computes in bfloat16, by its own rule."""
    if precision != "auto":
        return precision == "bfloat16"
    return is_gpu and model.num_parameters > _HALF_FROM


def of_training(model: Architecture, job: Training) -> Peak:
    """Return the peak of a training run."""
    learning = num_learning(model, job)
    weights = _FLOAT * float(model.num_parameters + (learning if job.lora_rank else 0))
    gradients, moments = _FLOAT * float(learning), 2.0 * _FLOAT * learning
    kept, rows = _kept(model, job), job.micro_batch
    always = {"weights": weights, "optimizer": moments}
    at_loss = {
        "gradients": gradients if job.accumulates else 0.0,
        "activations": kept.language * rows,
        "image activations": kept.vision * rows,
        "logits": _LOGIT_COPIES * _FLOAT * model.language.vocab * float(job.tokens * rows),
        "half-precision copies": _half_copies(model, job),
    }
    through_language = {
        "gradients": gradients if job.accumulates else gradients - _late_gradients(model, job),
        "activations": kept.one_language_layer * rows,
        "image activations": kept.vision * rows,
    }
    through_all = {"gradients": gradients, "image activations": kept.one_vision_layer * rows}
    moments_in_time = (at_loss, through_language, through_all)
    return max((Peak(always | now) for now in moments_in_time), key=lambda peak: peak.total)


def _late_gradients(model: Architecture, job: Training) -> float:
    """Return the gradients that the backward pass makes after the decoder's layers."""
    if job.lora_rank:
        return 0.0
    text = model.language
    embedding = text.vocab * text.width if "language" in job.parts else 0
    late = [model.counts[part] for part in job.parts if part in model.counts and part != "language"]
    return _FLOAT * float(sum(late) + embedding)


def num_learning(model: Architecture, job: Training) -> int:
    """Return how many parameters learn."""
    chosen = [part for part in job.parts if part in model.counts]
    if not job.lora_rank:
        return sum(model.counts[part] for part in chosen)
    return sum(_adapters(model, part, job) for part in chosen)


class _Kept(NamedTuple):
    """Bytes that autograd keeps for one row."""

    language: float
    vision: float
    one_language_layer: float  # with what its backward pass needs beside
    one_vision_layer: float


def _kept(model: Architecture, job: Training) -> _Kept:
    text, seen = model.language, model.vision
    is_learning = {part: part in job.parts for part in PARTS}
    layer = _language_layer(text, job, full=is_learning["language"] and not job.lora_rank)
    cross = _cross_keys(text, job) if text.num_cross_layers else 0.0
    ends = (3 + 3) * text.width * _FLOAT * job.tokens  # embeddings, their merge, the last norm
    whole = text.num_layers * layer + text.num_cross_layers * cross
    if job.has_checkpoints:
        whole = text.num_layers * text.width * _FLOAT * job.tokens
    scratch = 3 * text.mlp_width * (_HALF if job.is_half else _FLOAT) * job.tokens
    vision = one_vision = 0.0
    if seen is not None and job.patches:
        one_vision = _vision_layer(model.kind, seen, job) * job.patches
        vision = _vision_rest(model.kind, seen, text, job)
        if is_learning["vision"]:
            is_checkpointed = job.has_checkpoints and model.kind != "mllama"  # transformers 5.19
            kept = seen.width * _FLOAT * job.patches if is_checkpointed else one_vision
            vision += seen.num_layers * kept
    return _Kept(whole + ends, vision, layer + cross + scratch, one_vision)


def _language_layer(text: Language, job: Training, *, full: bool) -> float:
    """Return the bytes that one decoder layer keeps for a row.

    Of each norm: its input, the normed and the scaled one (3H); rotated queries and repeated keys
    and values with the attention's output (4A); gate, its activation, up and their product (4M).
    Frozen norms keep no normed input, frozen linear layers none of theirs.
    """
    heads = text.num_heads * text.head_dim
    if job.is_half:  # the residual stream stays float32, matrices read bfloat16
        norms = (2 * _FLOAT + _HALF) if full else (_FLOAT + _HALF)
        per_token = 2 * norms * text.width + 4 * _HALF * heads + 4 * _HALF * text.mlp_width
    else:
        norms = 3 if full else 2
        per_token = _FLOAT * (2 * norms * text.width + 4 * heads + 4 * text.mlp_width)
    if job.lora_rank:
        per_token += 7 * job.lora_rank * _FLOAT
    mask = job.tokens**2 * (_HALF if job.is_half else _FLOAT)
    return per_token * job.tokens + mask


def _cross_keys(text: Language, job: Training) -> float:
    """Return what a layer keeps of the image it attends to: keys, normed, and both repeated."""
    heads, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    size = _HALF if job.is_half else _FLOAT
    return job.patches * size * (3 * keys + 2 * heads) + job.patches * job.tokens * size


def _vision_layer(kind: str, seen: Vision, job: Training) -> float:
    """Return the bytes that one encoder layer keeps for a patch.

    Of each norm its input and output; queries, keys, values, the attention's output; and of the MLP
    two widths, three with the quick GELU of CLIP and Qwen2-VL, four when it is gated.
    """
    mlp = {"llava_next": 3, "qwen2_vl": 3, "qwen2_5_vl": 4}.get(kind, 2)
    attention = 6 if kind.startswith("qwen2") else 4
    if job.is_half:
        norms = 2 * (_FLOAT + _HALF)
        return norms * seen.width + _HALF * (attention * seen.width + mlp * seen.mlp_width)
    return _FLOAT * (4 * seen.width + attention * seen.width + mlp * seen.mlp_width)


def _vision_rest(kind: str, seen: Vision, text: Language, job: Training) -> float:
    """Return pixels, projector input and output, for a row."""
    pixels = 3 * seen.patch_px**2 * (2 if kind.startswith("qwen2") else 1)
    merged = job.patches / seen.merge**2
    per_token = seen.out_width + 2 * text.width
    if kind.startswith("qwen2"):
        per_token += 2 * seen.out_width
    return _FLOAT * (job.patches * pixels + merged * per_token)


def _half_copies(model: Architecture, job: Training) -> float:
    """Return the bfloat16 copies of weights that autocast holds until the forward pass ends."""
    if not job.is_half:
        return 0.0
    text = model.language
    tables = text.vocab * text.width * (0 if text.is_tied else 1)
    matrices = model.num_parameters - tables
    if job.has_checkpoints and job.lora_rank:
        matrices //= max(text.num_layers, 1)  # frozen weights are cast anew and not remembered
    return float(_HALF * matrices)


def _adapters(model: Architecture, part: str, job: Training) -> int:
    """Return the parameters of the adapters of one part: rank times the widths they join."""
    wanted = frozenset(job.lora_targets)
    if part == "language":
        return job.lora_rank * sum(
            ins + outs
            for name, (ins, outs) in _linears(model.language).items()
            if _ALL_LINEAR in wanted or name in wanted
        )
    if _ALL_LINEAR not in wanted or model.vision is None:
        return 0
    seen = model.vision
    if part == "projector":
        return job.lora_rank * (seen.out_width + 2 * model.language.width)
    mlps = 3 if seen.has_gate else 2
    layer = 8 * seen.width + mlps * (seen.width + seen.mlp_width)
    return job.lora_rank * seen.num_layers * layer


def _linears(text: Language) -> dict[str, tuple[int, int]]:
    """Return inputs and outputs of all linear layers of the decoder by name."""
    heads, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    width, mlp = text.width, text.mlp_width
    one = [(width, heads), (width, keys), (width, keys), (heads, width)]
    one += [(width, mlp), (width, mlp), (mlp, width)]
    return {
        name: (text.num_layers * ins, text.num_layers * outs)
        for name, (ins, outs) in zip(_LANGUAGE_LINEARS, one, strict=True)
    }


class Answering(NamedTuple):
    """What decides the peak of a model that answers."""

    bytes_per_weight: int = _HALF
    batch: int = 1
    prompt_tokens: int = 0
    new_tokens: int = 0
    patches: int = 0  # of the images of one request


def cache_per_token(text: Language, bytes_per_value: int) -> float:
    """Return the bytes of keys and values of one token."""
    own = text.num_layers - text.num_cross_layers
    return float(2 * own * text.num_kv_heads * text.head_dim * bytes_per_value)


def of_answering(model: Architecture, job: Answering) -> Peak:
    """Return the peak of a model that answers a batch, loaded by transformers."""
    text, seen, size = model.language, model.vision, job.bytes_per_weight
    whole = job.prompt_tokens + job.new_tokens
    cache = job.batch * cache_per_token(text, size) * whole
    if text.num_cross_layers:
        keys = 2 * text.num_cross_layers * text.num_kv_heads * text.head_dim
        cache += job.batch * job.patches * keys * size
    heads = text.num_heads * text.head_dim
    layer = 3 * text.mlp_width + 4 * text.width + 2 * heads
    prompt = job.batch * job.prompt_tokens * layer * size
    prompt += job.batch * job.prompt_tokens**2 * size  # the mask
    images = 0.0
    if seen is not None and job.patches:
        pixels = 3 * seen.patch_px**2 * (2 if model.kind.startswith("qwen2") else 1)
        images = (
            job.batch * job.patches * size * float(pixels + 3 * seen.mlp_width + 5 * seen.width)
        )
    return Peak(
        {
            "weights": float(size * model.num_parameters),
            "key-value cache": cache,
            "prompt": max(prompt, images),
            "logits": float(job.batch * text.vocab * 2 * _FLOAT),
        }
    )
