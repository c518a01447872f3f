"""Stand-ins for LoRA adapters, and whether the real one fits the real model.

The real model is built without its weights ("meta" tensors), which tells the name and size of every
layer; an adapter's own file tells those that it changes. Nothing of either is read into memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.backends._transformers_adapter import PREFIX, unmatched
from engine.models import family_of
from engine.models._known import KnownModel

CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_SHOWN = 3


def mistake(known: KnownModel, adapter: Path) -> str | None:
    """Return why an adapter does not load on a model; None if nothing speaks against it."""
    if not (adapter / CONFIG).is_file():
        return f"it has no {CONFIG}"
    try:
        json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    except ValueError:
        return f"its {CONFIG} is not JSON"
    if not (adapter / _WEIGHTS).is_file():
        return None  # older adapters are pickles, which are not opened to look at them
    shapes = _shapes(adapter / _WEIGHTS)
    layers = dict(_meta_model(known).named_modules())
    lost = unmatched(list(shapes), list(layers))
    if lost:
        shown = ", ".join(lost[:_SHOWN])
        return f"{len(lost)} of its modules are not in the model: {shown}"
    return next(_wrong_sizes(shapes, layers), None)


def write(model: Path, kind: str, adapter: Path, folder: Path) -> str | None:
    """Write a stand-in with the settings of an adapter; return why the model takes none."""
    import peft
    import torch
    import transformers

    settings = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    kept = ("r", "lora_alpha", "target_modules", "use_rslora", "modules_to_save")
    chosen = {name: settings[name] for name in kept if settings.get(name)}
    base = getattr(transformers, family_of(kind).auto_class).from_pretrained(model)
    config = peft.LoraConfig(**chosen, task_type="CAUSAL_LM", init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            made = peft.get_peft_model(base, config)
        except ValueError as error:
            return " ".join(str(error).split())[:200]
    made.save_pretrained(str(folder))
    return None


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a file, by name."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _wrong_sizes(shapes: dict[str, tuple[int, ...]], layers: dict[str, Any]) -> Iterator[str]:
    for name, shape in shapes.items():
        module, _, part = name.removeprefix(PREFIX).partition(".lora_")
        width = getattr(
            layers.get(module), {"A": "in_features"}.get(part[:1], "out_features"), None
        )
        found = shape[1] if part.startswith("A") else shape[0]
        if part[:2] in ("A.", "B.") and width is not None and width != found:
            yield f"it was made for layers of {found:,}, `{module}` has {width:,}"


def _meta_model(known: KnownModel) -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**{"model_type": known.kind, **known.config})
    with torch.device("meta"):
        return getattr(transformers, family_of(known.kind).auto_class).from_config(config)
