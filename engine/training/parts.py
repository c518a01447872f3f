"""Which parameters learn, at which rate, and the low-rank adapters.

Weight decay spares vectors (norms, biases), as is usual since Loshchilov and Hutter (2019).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from engine.diagnostics import StageError
from engine.models import ModelFamily
from engine.recipe.model import LoraSpec, TrainSpec

ALL_LINEAR = "all-linear"


def freeze(model: Any, family: ModelFamily, parts: Sequence[str]) -> None:
    """Let only the named parts learn. Raise StageError if that leaves nothing."""
    chosen = known_parts(family, parts)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(family.part_of(name) in chosen)


def known_parts(family: ModelFamily, parts: Sequence[str]) -> frozenset[str]:
    """Return the parts to train that this family has; a text model has only language."""
    chosen = frozenset(parts) & frozenset(family.parts)
    if not chosen:
        raise StageError(
            f"none of the parts {', '.join(parts)} is in this model",
            hint=f"it has {', '.join(family.parts)}",
        )
    return chosen


def with_lora(
    model: Any, family: ModelFamily, parts: Sequence[str], spec: LoraSpec, seed: int
) -> Any:
    """Return the model with adapters on linear layers of the named parts; the rest is frozen."""
    import peft
    import torch

    targets = _lora_targets(model, family, known_parts(family, parts), spec.targets)
    if not targets:
        raise StageError(f"no linear layer is named {', '.join(spec.targets)}")
    config = peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def parameter_groups(model: Any, family: ModelFamily, spec: TrainSpec) -> list[dict[str, Any]]:
    """Return optimizer groups; each has its `peak`, the rate that the schedule scales."""
    vision = spec.vision_learning_rate
    peaks = {"vision": spec.learning_rate if vision is None else vision}
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in learning(model):
        part = family.part_of(_plain_name(name))
        decay = spec.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((peaks.get(part, spec.learning_rate), decay), []).append(parameter)
    return [
        {"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay}
        for (peak, decay), parameters in groups.items()
    ]


def learning(model: Any) -> Iterable[tuple[str, Any]]:
    """Return the names and parameters that learn, in a fixed order."""
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def _plain_name(name: str) -> str:
    """Undo the prefix that peft puts before a parameter's name."""
    return name.removeprefix("base_model.model.")


def _lora_targets(
    model: Any, family: ModelFamily, parts: frozenset[str], wanted: Sequence[str]
) -> list[str]:
    import torch

    names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    inside = [n for n in names if family.part_of(n) in parts]
    if ALL_LINEAR in wanted:
        return [name for name in inside if not name.endswith("lm_head")]
    pattern = re.compile(rf"(^|\.)({'|'.join(map(re.escape, wanted))})$")
    return [name for name in inside if pattern.search(name)]
