"""Runs a model in this process with transformers: any family, CPU or GPU.

Requests are sorted by length, and a row that is done makes room for the next; a beginning that
many prompts share is read once. None of that changes what is written, but for float noise.
Sampling draws its noise from the request, not from the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from engine.backends import Backend, ModelFiles, Session
from engine.plan.stage import Machine
from engine.plugin import AtLeast, Neutral


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How the model is run."""

    batch_size: Annotated[int, AtLeast(1), Neutral(), "Most requests answered at once."] = 16
    batch_tokens: Annotated[
        int, AtLeast(1), Neutral(), "Most tokens at once, padding and room for answers included."
    ] = 65536
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        "Number format; auto: bfloat16 on a GPU, float32 on a CPU.",
    ] = "auto"


def open_session(files: ModelFiles, params: Params, machine: Machine) -> Session:
    """Load a model. Raise StageError if it is no known model."""
    import torch

    from engine.backends._transformers import TransformersSession
    from engine.models._loading import load_weights, open_kit

    torch.set_num_threads(machine.num_threads)
    kit = open_kit(files.path, files.revision, files.trust_remote_code)
    wanted = params.dtype
    if wanted == "auto":
        wanted = "float32" if machine.device == "cpu" else "bfloat16"
    model = load_weights(kit, dtype=getattr(torch, wanted), device=machine.device)
    # A process that ran out of the machine's memory comes back with smaller batches.
    batch_size = max(1, params.batch_size >> machine.shrink)
    batch_tokens = max(1, params.batch_tokens >> machine.shrink)
    session = TransformersSession(kit, model, batch_size, batch_tokens, machine.device)
    if files.adapter is not None:
        session.load_adapter(files.adapter, files.adapter_revision)
    return session


PLUGIN = Backend(version=2, params=Params, open=open_session)
