"""The least that a node takes, whatever its rows are: what is told as impossible must be so.

A forecast assumes rows as long as the recipe allows; here only weights count, and what learns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from engine.forecast import memory
from engine.forecast.load import GIGA
from engine.models._facts import PARTS, Architecture
from engine.models._known import KnownModel, ModelFinder
from engine.plan.estimate import Forecast
from engine.plan.lock import mappings_in
from engine.plan.stage import Node

ELSEWHERE = "openai"  # the backend whose models run on another machine
_BYTES = {"float32": 4}
_TRAINING_PASSES, _ANSWERING_PASSES = 6, 2  # operations per weight and token: Kaplan et al. 2020


class Least(NamedTuple):
    """What one model of a node takes at least."""

    model: str
    memory_gb: float  # of all devices that share the work
    operations: float  # zero where the tokens are not known
    backend: str  # empty for training


def of_node(node: Node, models: ModelFinder, forecast: Forecast | None) -> list[Least]:
    """Return what each model of a node takes; nothing of models that are not known."""
    tokens = forecast.tokens.value if forecast and forecast.tokens else 0.0
    found = []
    for use in models_of(node):
        known = models.find(use["model"], use["revision"])
        if known is None or known.architecture is None:
            continue
        passes = _TRAINING_PASSES if _trains(node) else _ANSWERING_PASSES
        work = passes * known.architecture.num_parameters * tokens
        backend = backend_of(use)
        size = _trained_gb(known.architecture, use) if _trains(node) else _loaded_gb(known, use)
        found.append(Least(use["model"], size, work, backend))
    return found


def models_of(node: Node) -> Iterator[Mapping[str, Any]]:
    """Yield what names a model that this machine must load, with its revision and backend."""
    if node.stage in ("report", "collect"):  # the report repeats the recipe as text
        return
    # Of the tower of an original LLaVA often no more than its config is read.
    values = [node.params] if node.stage == "convert" else mappings_in(node.params)
    for value in values:
        is_model = isinstance(value.get("model"), str) and "revision" in value
        if is_model and backend_of(value) != ELSEWHERE:
            yield value


def gpus_of(node: Node) -> int:
    """Return how many GPUs a process of a node works with: of its models, the most.

    A model may be split over several, and copied; none where all answer elsewhere.
    """
    uses = [
        value for value in mappings_in(node.params) if "revision" in value and backend_of(value)
    ]
    backends = [use["backend"] for use in uses if backend_of(use) != ELSEWHERE]
    if uses and not backends:
        return 0
    sizes = [
        int(backend.get("tensor_parallel_size", 1)) * int(backend.get("data_parallel_size", 1))
        for backend in backends
    ]
    return max(sizes, default=1)


def backend_of(use: Mapping[str, Any]) -> str:
    """Return the backend that answers as a model; nothing for one that is trained."""
    return str((use.get("backend") or {}).get("use", ""))


def _trains(node: Node) -> bool:
    return "training" in node.params


def _trained_gb(model: Architecture, params: Mapping[str, Any]) -> float:
    lora = params["lora"] if params.get("method") == "lora" else None
    job = memory.Training(
        parts=tuple(part for part in params["train"] if part in PARTS),
        lora_rank=lora["rank"] if lora else 0,
        lora_targets=tuple(lora["targets"]) if lora else (),
        has_checkpoints=True,
        accumulates=False,
    )
    return memory.of_training(model, job).total / GIGA


def _loaded_gb(known: KnownModel, use: Mapping[str, Any]) -> float:
    """Return the weights alone; nothing for quantised ones, which may take any share of it."""
    backend = use.get("backend") or {}
    model = known.architecture
    if model is None or backend.get("quantization") or "quantization_config" in known.config:
        return 0.0
    return _BYTES.get(str(backend.get("dtype")), 2) * model.num_parameters / GIGA
