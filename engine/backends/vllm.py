"""Runs a model with vLLM: many requests at once, for large models on GPUs.

Prompts and endings are the project's own, as with every backend; vLLM only writes tokens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from engine.backends import Backend, ModelFiles, Session
from engine.plan.stage import Machine
from engine.plugin import AtLeast, Between, Neutral

CPU_CACHE_GIB = 1  # of the key-value cache where there is no GPU; vLLM would take half the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How the model is run."""

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        "Number format; auto: bfloat16 on a GPU, float32 on a CPU.",
    ] = "auto"
    max_model_len: Annotated[
        int | None, AtLeast(1), "Most tokens of prompt and answer; null: what the model holds."
    ] = None
    max_images: Annotated[int, AtLeast(1), Neutral(), "Most images of one request."] = 1
    max_num_seqs: Annotated[int, AtLeast(1), Neutral(), "Requests answered at once."] = 64
    gpu_memory_utilization: Annotated[
        float, Between(0.05, 1.0), Neutral(), "Share of the GPU's memory to take."
    ] = 0.9
    tensor_parallel_size: Annotated[int, AtLeast(1), Neutral(), "GPUs for one model."] = 1


def open_session(files: ModelFiles, params: Params, machine: Machine) -> Session:
    """Start an engine. Raise StageError if it is no known model."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_CACHE_GIB))
    from engine.backends._vllm import VllmSession
    from engine.models._loading import open_kit

    kit = open_kit(files.path, files.revision, files.trust_remote_code)
    from transformers import GenerationConfig
    from vllm import LLM

    is_cpu = machine.device == "cpu"
    wanted = params.dtype
    if wanted == "auto":
        wanted = "float32" if is_cpu else "bfloat16"
    limit = min(params.max_model_len or kit.context_tokens, kit.context_tokens)
    images = {"limit_mm_per_prompt": {"image": params.max_images}} if kit.family.has_vision else {}
    engine = LLM(
        files.path,
        revision=files.revision,
        trust_remote_code=files.trust_remote_code,
        dtype=wanted,
        max_model_len=limit,
        max_num_seqs=params.max_num_seqs,
        gpu_memory_utilization=params.gpu_memory_utilization,
        tensor_parallel_size=params.tensor_parallel_size,
        enforce_eager=is_cpu,
        generation_config="vllm",
        **images,
    )
    try:
        found = GenerationConfig.from_pretrained(files.path, revision=files.revision).eos_token_id
    except OSError:
        found = None
    return VllmSession(kit, engine, limit, found)


PLUGIN = Backend(version=1, params=Params, open=open_session)
