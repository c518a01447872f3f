"""Runs a model with vLLM: many requests at once, for large models on GPUs.

Prompts and endings are the project's own, as with every backend; vLLM only writes tokens. Its own
continuous batching is fed from a queue that is never empty while there is work, and never long:
neither a chunk's slowest row nor the preparation of prompts keeps the engine waiting, and memory
does not grow with the number of rows.
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
        Literal["auto", "float32", "bfloat16", "float16"],
        "Number format; auto: bfloat16 on a GPU, float32 on a CPU, a quantised checkpoint's own.",
    ] = "auto"
    quantization: Annotated[
        str | None,
        "How weights are quantised, for example fp8; null: as the checkpoint's config says.",
    ] = None
    max_model_len: Annotated[
        int | None, AtLeast(1), "Most tokens of prompt and answer; null: what the model holds."
    ] = None
    max_images: Annotated[int, AtLeast(1), Neutral(), "Most images of one request."] = 1
    max_num_seqs: Annotated[int, AtLeast(1), Neutral(), "Requests answered at once."] = 256
    gpu_memory_utilization: Annotated[
        float, Between(0.05, 1.0), Neutral(), "Share of the GPU's memory to take."
    ] = 0.9
    tensor_parallel_size: Annotated[int, AtLeast(1), Neutral(), "GPUs for one model."] = 1
    data_parallel_size: Annotated[
        int, AtLeast(1), Neutral(), "Copies of the model, each on GPUs of its own."
    ] = 1


def open_session(files: ModelFiles, params: Params, machine: Machine) -> Session:
    """Start an engine. Raise StageError if vLLM cannot run the model, or ignores its adapter."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_CACHE_GIB))
    os.environ.setdefault("VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS", "1")  # it has nothing to save
    from engine.backends._vllm import VllmSession
    from engine.backends._vllm_engine import Engine, start
    from engine.models._loading import open_kit

    kit = open_kit(files.path, files.revision, files.trust_remote_code)
    engine: Engine = start(kit, files, params, machine)
    try:
        session = VllmSession(kit, engine)
        session.check_adapter()
    except BaseException:
        engine.close()
        raise
    return session


PLUGIN = Backend(version=2, params=Params, open=open_session, is_continuous=True)
