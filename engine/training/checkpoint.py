"""Checkpoints of a training run: sealed safetensors files, the last two of them, no pickle.

One holds the parameters that learn, the model's lasting buffers, the moments of AdamW and, as JSON
in the header, the step, the run's identity and the losses so far. Data order and random numbers are
functions of seed and step, so nothing else is needed to go on as if the run had never been cut.

The one before the last is there for the case that the last is damaged; a damaged one is never used.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.training import sealed
from engine.training.team import Team

STEM = "checkpoint-"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run got."""

    step: int  # finished optimizer steps
    losses: tuple[Mapping[str, Any], ...]
    unlogged: Mapping[str, float] = field(default_factory=dict)  # added up since the last of them
    num_halvings: int = 0  # of the micro-batch, because memory ran out
    is_end: bool = False  # nothing follows that needs moments


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint is taken of and put back into."""

    learning: Sequence[tuple[str, Any]]  # parameters
    buffers: Sequence[tuple[str, Any]]
    optimizer: Any
    team: Team
    identity: str

    def tensors(self, *, is_end: bool) -> Iterator[tuple[str, Any]]:
        """Yield the name and tensor of everything there is to keep."""
        yield from ((f"buffer/{name}", value) for name, value in self.buffers)
        for name, parameter in self.learning:
            yield f"parameter/{name}", parameter
            moments = {} if is_end else self.optimizer.state.get(parameter, {})
            yield from ((f"{m}/{name}", moments[m]) for m in _MOMENTS if m in moments)


def save(folder: Path, state: State, progress: Progress) -> None:
    """Write a checkpoint; a kill leaves those before it. All processes of a split model call it."""
    tensors = {
        name: state.team.whole(value) for name, value in state.tensors(is_end=progress.is_end)
    }
    if not state.team.is_first:
        return
    for old in sealed.found(folder, STEM)[:-1]:
        old.unlink()
    written = sealed.begin(folder, f"{STEM}{progress.step:09d}")
    _write(tensors, written, _header(state, progress))
    sealed.seal(written)


def load(folder: Path, state: State) -> Progress:
    """Put parameters and moments back; a fresh start if there is no checkpoint of this very run."""
    from safetensors import safe_open

    for path in reversed(sealed.found(folder, STEM)):
        header = _read_header(path) if sealed.is_whole(path) else None
        if header is None or header["identity"] != state.identity:
            if state.team.is_first:  # what is damaged or strange would count as the last one
                path.unlink(missing_ok=True)
            continue
        with safe_open(path, framework="pt") as stored:
            _put_back(state, stored)
        return Progress(
            step=int(header["step"]),
            losses=tuple(json.loads(header["losses"])),
            unlogged=json.loads(header["unlogged"]),
            num_halvings=int(header["num_halvings"]),
        )
    return Progress(0, ())


def _write(tensors: Mapping[str, Any], path: Path, header: Mapping[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata=dict(header))
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):  # as every other writer says it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    if _read_header(path) is None:
        raise OSError(f"the checkpoint {path} cannot be read back")


def _header(state: State, progress: Progress) -> dict[str, str]:
    return {
        "identity": state.identity,
        "step": str(progress.step),
        "losses": json.dumps([dict(row) for row in progress.losses]),
        "unlogged": json.dumps(dict(progress.unlogged)),
        "num_halvings": str(progress.num_halvings),
    }


def _read_header(path: Path) -> dict[str, str] | None:
    """Return what stands in the header of a file, None if its parts do not fill it exactly."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            return dict(stored.metadata() or {})
    except (SafetensorError, OSError):
        return None


def _put_back(state: State, stored: Any) -> None:
    import torch

    names = set(stored.keys())
    with torch.no_grad():
        for name, buffer in state.buffers:
            buffer.copy_(stored.get_tensor(f"buffer/{name}"))
        for name, parameter in state.learning:
            whole = stored.get_tensor(f"parameter/{name}")
            parameter.copy_(state.team.like(parameter, whole))
            if f"exp_avg/{name}" in names:
                state.optimizer.state[parameter] = _moments(state, parameter, name, stored)


def _moments(state: State, parameter: Any, name: str, stored: Any) -> dict[str, Any]:
    is_fused = any(group.get("fused") for group in state.optimizer.param_groups)
    moments = {moment: stored.get_tensor(f"{moment}/{name}") for moment in _MOMENTS}
    step = moments.pop("step")  # AdamW counts on the CPU unless it is fused
    return {
        "step": step.to(parameter.device) if is_fused else step,
        **{moment: state.team.like(parameter, value) for moment, value in moments.items()},
    }
