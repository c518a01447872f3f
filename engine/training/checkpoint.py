"""Checkpoints of a training run: one safetensors file, replaced whole, no pickle.

It holds the parameters that learn, the moments of AdamW and, as JSON in the header, the step, the
run's identity and the losses so far. Data order and random numbers are functions of seed and step,
so nothing else is needed to go on as if the run had never been cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "checkpoint.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run got."""

    step: int  # finished optimizer steps
    losses: tuple[Mapping[str, Any], ...]


def save(
    folder: Path,
    parameters: Sequence[tuple[str, Any]],
    optimizer: Any,
    progress: Progress,
    identity: str,
) -> None:
    """Write a checkpoint; a kill leaves the one before it or this one."""
    from safetensors.torch import save_file

    tensors = {}
    for name, parameter in parameters:
        tensors[f"parameter/{name}"] = parameter.detach().cpu().contiguous()
        for moment in _MOMENTS:
            value = optimizer.state.get(parameter, {}).get(moment)
            if value is not None:
                tensors[f"{moment}/{name}"] = value.detach().cpu().contiguous()
    header = {
        "step": str(progress.step),
        "identity": identity,
        "losses": json.dumps([dict(row) for row in progress.losses]),
    }
    temporary = folder / f"{FILE}.tmp"
    save_file(tensors, temporary, metadata=header)
    temporary.replace(folder / FILE)


def load(
    folder: Path, parameters: Sequence[tuple[str, Any]], optimizer: Any, identity: str
) -> Progress:
    """Put parameters and moments back; a fresh start if there is no checkpoint of this very run."""
    import torch
    from safetensors import safe_open

    path = folder / FILE
    if not path.exists():
        return Progress(0, ())
    with safe_open(path, framework="pt") as stored, torch.no_grad():
        header = stored.metadata()
        names = set(stored.keys())
        if header.get("identity") != identity:
            return Progress(0, ())
        for name, parameter in parameters:
            parameter.copy_(stored.get_tensor(f"parameter/{name}"))
            if f"exp_avg/{name}" in names:
                _set_moments(optimizer, parameter, name, stored)
    return Progress(int(header["step"]), tuple(json.loads(header["losses"])))


def _set_moments(optimizer: Any, parameter: Any, name: str, stored: Any) -> None:
    is_fused = any(group.get("fused") for group in optimizer.param_groups)
    state = {moment: stored.get_tensor(f"{moment}/{name}") for moment in _MOMENTS}
    for moment, value in state.items():
        stays = moment == "step" and not is_fused  # AdamW counts on the CPU unless it is fused
        state[moment] = value if stays else value.to(parameter.device)
    optimizer.state[parameter] = state
