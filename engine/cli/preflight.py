"""Before the first stage: whether this machine can run a recipe at all, told on one page.

Only what is certain stops a run. What a model takes is counted from its weights alone, and what is
not known is no finding. The machines of a cluster are not this one; of it, only its store is seen.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from engine.cli import absent, blamed, errors, installed, planning, tables
from engine.cli.frozen import VLLM
from engine.cli.outlays import Outlay
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, ExitCode, RequestError
from engine.forecast import least
from engine.forecast.least import Least
from engine.models._known import finder_of, hub_cache
from engine.plan.stage import Node
from engine.runtime import machine
from engine.runtime.machine import Settings

# A bound from above: float32 on two units of 512 bits at 3 GHz. Nobody waits as long as that.
_CORE_OPERATIONS_S, _MAX_DAYS, _DAY_S = 2e11, 30, 86_400
_LABELS = {
    "no-gpu": "GPU",
    "too-few-gpus": "GPU",
    "backend-missing": "backend",
    "too-large-for-machine": "memory",
    "too-slow-for-machine": "time",
    "disk-too-small": "disk",
    "hub-unreachable": "hub",
}
_OTHER = "recipe"  # what any machine would refuse: a gated model, a name that is not there
_WIDTH = 100


class Hardware(NamedTuple):
    """What this machine has, used or not."""

    num_cores: int
    memory_gb: float | None  # None: nothing tells
    gpu_memory_gb: Sequence[float] = ()  # of each GPU; empty: none, or nothing tells


@dataclass(frozen=True, slots=True)
class Ground:
    """What is to be run, and what there is to run it on."""

    planned: Planned  # its plan is the part that is run
    nodes: Sequence[Node]  # that are left to run
    outlay: Outlay
    settings: Settings
    hardware: Hardware


def hardware(environ: Mapping[str, str]) -> Hardware:
    """Return what this machine has."""
    sizes = machine.gpu_sizes_gb(environ.get("CUDA_VISIBLE_DEVICES"))
    return Hardware(machine.num_cores(), machine.memory_gb(), sizes)


def refuse(args: argparse.Namespace, ground: Ground) -> int | None:
    """Print why a run cannot be; return its exit code, or None where nothing is in the way.

    Raises RequestError where all that is wrong is in the recipe.
    """
    is_here = ground.settings.executor == "local"
    found = findings(ground) if is_here else list(_disk(ground, 0.0))
    if not found:
        return None
    if all(item.code not in _LABELS for item in found):
        raise RequestError(*found)
    again = rehearsal(ground.planned)
    if args.json:
        told = [replace(item, hint=item.hint or f"on this machine: {again}") for item in found]
        errors.show(told, as_json=True)
    else:
        print(page(args.recipe, found, again), file=sys.stderr)
    return int(ExitCode.REQUEST_WRONG)


def findings(ground: Ground) -> list[Diagnostic]:
    """Return all that keeps this machine from running the nodes that are left."""
    finder = finder_of(ground.planned.folder, os.environ)
    forecasts = ground.outlay.forecasts
    models = [
        (node, one)
        for node in ground.nodes
        for one in least.of_node(node, finder, forecasts.get(node.id))
    ]
    missing = absent.of_nodes(ground.nodes, os.environ)
    return [
        *_backends(ground),
        *_gpus(ground),
        *_memory(ground, models),
        *_time(ground, models),
        *_disk(ground, absent.size_gb(missing, finder)),
        *absent.mistakes(ground.planned, missing, is_offline=ground.settings.is_offline),
    ]


def rehearsal(planned: Planned) -> str:
    """Return the command that runs all of a recipe on this machine, on stand-ins."""
    words = ["adapt", "rehearse", str(planned.recipe)]
    for override in planned.overrides:
        words += ["--set", override]
    return shlex.join(words)


def page(recipe: str, found: Sequence[Diagnostic], again: str) -> str:
    """Return all that was found as one page."""
    labels = [_LABELS.get(item.code, _OTHER) for item in found]
    indent = " " * (max(map(len, labels)) + 4)
    lines = [f"error[cannot-run-here]: this machine cannot run {recipe}; nothing was started", ""]
    for label, item in zip(labels, found, strict=True):
        texts = [item.message, item.hint or "", str(item.span) if item.span else ""]
        first, *rest = [row for text in texts for row in textwrap.wrap(text, _WIDTH - len(indent))]
        lines += [f"  {label}".ljust(len(indent)) + first, *(indent + row for row in rest)]
    return "\n".join(
        [*lines, "", "what this machine can do: every stage, on stand-ins", f"  {again}"]
    )


def _backends(ground: Ground) -> Iterator[Diagnostic]:
    nodes = [
        node
        for node in ground.nodes
        if any(least.backend_of(use) == VLLM for use in least.models_of(node))
    ]
    if not nodes:
        return
    span, users = planning.origin_of(nodes[0], ground.planned.folder), [n.id for n in nodes]
    python = ground.settings.pythons.get(VLLM)
    is_here = python is not None or importlib.util.find_spec(VLLM) is not None
    who = f"{_listed(users)} {'answers' if len(users) == 1 else 'answer'} with the backend `vllm`"
    if not is_here:
        hint = "install it, here or elsewhere with --python vllm=PATH"
        yield Diagnostic("backend-missing", f"{who}, which is not installed", span, hint)
    if ground.settings.device == "cpu" and (not is_here or installed.needs_gpu(VLLM, python)):
        message = f"{who}, which needs an NVIDIA GPU; none can be used here"
        yield Diagnostic("no-gpu", message, span)


def _gpus(ground: Ground) -> Iterator[Diagnostic]:
    """Yield the first node that splits or copies a model over more GPUs than there are."""
    there = ground.settings.num_gpus
    wanted = ((node, least.gpus_of(node)) for node in ground.nodes if node.needs.accelerator)
    node, num = next(((node, num) for node, num in wanted if num > max(there, 1)), (None, 0))
    if node is None or ground.settings.device == "cpu":
        return
    message = (
        f"`{node.id}` has a model on {num} GPUs (`tensor_parallel_size` times "
        f"`data_parallel_size`); this machine has {there}"
    )
    span = planning.origin_of(node, ground.planned.folder)
    hint = "without either, a stage is shared by as many processes as there are GPUs"
    yield Diagnostic("too-few-gpus", message, span, hint)


def _memory(ground: Ground, models: Sequence[tuple[Node, Least]]) -> Iterator[Diagnostic]:
    """Yield the neediest use of each model that does not fit."""
    worst: dict[str, tuple[Node, Least]] = {}
    for node, one in models:
        if one.model not in worst or one.memory_gb > worst[one.model][1].memory_gb:
            worst[one.model] = (node, one)
    is_gpu, here = ground.settings.device == "cuda", ground.hardware
    there_gb = sum(here.gpu_memory_gb) if is_gpu else here.memory_gb
    if not there_gb:
        return
    what = "GPU memory in all" if is_gpu else "memory"
    for node, one in worst.values():
        if one.memory_gb > there_gb:
            message = (
                f"`{node.id}` needs {one.memory_gb:,.0f} GB or more for `{one.model}`; "
                f"this machine has {there_gb:,.0f} GB of {what}"
            )
            found = Diagnostic("too-large-for-machine", message)
            yield blamed.placed(found, node, ("model", one.model), ground.planned)


def _time(ground: Ground, models: Sequence[tuple[Node, Least]]) -> Iterator[Diagnostic]:
    """Yield what a CPU would take a month or more for."""
    if ground.settings.device != "cpu":
        return
    num_cores = ground.hardware.num_cores
    per_day = _CORE_OPERATIONS_S * num_cores * _DAY_S
    node, one = max(models, key=lambda found: found[1].operations, default=(None, None))
    if node is None or one is None or one.operations <= _MAX_DAYS * per_day:
        return
    message = (
        f"`{node.id}` takes {one.operations / per_day:,.0f} days or more for `{one.model}` on "
        f"the {num_cores} cores of this machine, without a GPU"
    )
    found = Diagnostic("too-slow-for-machine", message)
    yield blamed.placed(found, node, ("model", one.model), ground.planned)


def _disk(ground: Ground, downloads_gb: float) -> Iterator[Diagnostic]:
    store, cache = ground.settings.store, hub_cache(os.environ)
    artifacts_gb, free_gb = ground.outlay.sums.get("disk_gb", 0.0), ground.outlay.free_gb
    if _device(store) == _device(cache):
        artifacts_gb, downloads_gb = artifacts_gb + downloads_gb, 0.0
    elif downloads_gb > (machine.free_disk_gb(cache) or downloads_gb):
        message = f"models of {downloads_gb:,.0f} GB are to be downloaded to {cache}"
        yield Diagnostic("disk-too-small", f"{message}, which has no room", hint="set HF_HOME")
    yield from no_room(artifacts_gb, free_gb, store)


def no_room(needed_gb: float, free_gb: float | None, store: Path) -> Iterator[Diagnostic]:
    """Yield why a disk is too small for what is to be written, if it is known to be."""
    if free_gb is not None and needed_gb > free_gb:
        needed, free = tables.size(needed_gb * 1e9), tables.size(free_gb * 1e9)
        message = f"{needed} or more are to be written, {free} are free"
        hint = "make room, or choose another folder with --store"
        yield Diagnostic("disk-too-small", f"{message} at {store}", hint=hint)


def _device(path: Path) -> int | None:
    found = next((folder for folder in (path, *path.resolve().parents) if folder.is_dir()), None)
    return found.stat().st_dev if found else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
