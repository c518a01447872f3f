"""Puts a LoRA adapter on a model, and makes sure that it is there.

An adapter whose module names fit nothing is loaded without an error, and what answers is the base
model. So every module must be found, and the answer to a probe must change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.diagnostics import StageError

PREFIX = "base_model.model."
SHOWN = 5


def with_adapter(
    model: Any, adapter: str, revision: str | None, probe: Callable[[Any], Any]
) -> Any:
    """Return the model with an adapter merged into it; `probe` gives a model's logits.

    Raises StageError if the adapter does not fit, or changes nothing.
    """
    import torch
    from peft import PeftModel
    from peft.utils import load_peft_weights

    try:
        stored = load_peft_weights(adapter, device="cpu", revision=revision)
    except (OSError, ValueError) as error:
        raise StageError(f"the adapter `{adapter}` cannot be opened: {error}") from error
    lost = unmatched(list(stored), [name for name, _ in model.named_modules()])
    if lost:
        raise StageError(
            f"{len(lost)} modules of the adapter `{adapter}` are not in the model: "
            f"{', '.join(lost[:SHOWN])}{', ...' if len(lost) > SHOWN else ''}",
            hint=_made_for(adapter),
        )
    before = probe(model)
    try:
        merged = PeftModel.from_pretrained(model, adapter, revision=revision).merge_and_unload()
    except (ValueError, RuntimeError) as error:
        raise StageError(f"the adapter `{adapter}` does not fit the model: {error}") from error
    if torch.equal(before, probe(merged)):
        raise StageError(
            f"the adapter `{adapter}` changes nothing: the model answers a probe as before",
            hint="it was never trained, or belongs to another model; without it, leave it out",
        )
    return merged


def unmatched(names: list[str], modules: list[str]) -> list[str]:
    """Return the modules of an adapter, by the names of its tensors, that a model does not have."""
    there = set(modules)
    found = {_module_of(name.removeprefix(PREFIX)) for name in names}
    return sorted(found - there)


def _module_of(name: str) -> str:
    """Return the module that a tensor such as `a.b.lora_A.weight` changes."""
    for part in (".lora_", ".modules_to_save", ".base_layer"):
        name = name.partition(part)[0]
    return name.removesuffix(".weight").removesuffix(".bias")


def _made_for(adapter: str) -> str | None:
    config = Path(adapter) / "adapter_config.json"
    if not config.is_file():
        return None
    made = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    return f"it was made for `{made}`" if made else None
