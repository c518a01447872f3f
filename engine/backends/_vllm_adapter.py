"""LoRA adapters under vLLM: what they need of the engine, and whether it really applies them.

vLLM serves the base model without a word when it does not know an adapter's modules (vllm#55193,
#48019), and leaves out those of the vision tower and the projector unless it is told
(`enable_tower_connector_lora`, vllm#17660, #35147).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.diagnostics import StageError
from engine.models._loading import ModelKit

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
MAX_NAMED = 5  # modules that an error shows


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter on the disk, as its config and weights describe it."""

    folder: str
    rank: int
    modules: tuple[str, ...]  # of the base model, as transformers names them
    parts: frozenset[str]  # vision, projector, language

    def settings(self) -> dict[str, Any]:
        """Return what the engine must be started with."""
        return {
            "enable_lora": True,
            "max_loras": 1,
            "max_lora_rank": next(rank for rank in RANKS if rank >= self.rank),
            "enable_tower_connector_lora": bool(self.parts - {"language"}),
            "worker_extension_cls": "engine.backends._vllm_worker.AdapterReport",
        }

    def request(self) -> Any:
        """Return what names it in a request."""
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, self.folder)


def read_adapter(kit: ModelKit, place: str, revision: str | None) -> Adapter:
    """Read an adapter from a folder or the hub. Raise StageError if vLLM could not load it."""
    folder = _folder(place, revision)
    told = _config(folder, place)
    if told.get("peft_type", "LORA") != "LORA" or told.get("use_dora"):
        raise StageError(
            f"the adapter `{place}` is no plain LoRA adapter",
            hint="merge it into its base, or use the backend `transformers`",
        )
    rank = max([int(told.get("r", 8)), *(told.get("rank_pattern") or {}).values()])
    if rank > RANKS[-1]:
        raise StageError(f"the adapter `{place}` has rank {rank}; vLLM holds {RANKS[-1]}")
    modules = tuple(sorted({_module_of(name) for name in _tensor_names(folder, place)}))
    parts = frozenset(kit.family.part_of(module) for module in modules)
    return Adapter(str(folder), rank, modules, parts)


def _folder(place: str, revision: str | None) -> Path:
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, revision=revision))
    except (OSError, ValueError) as error:
        raise StageError(f"the adapter `{place}` cannot be opened: {error}") from error


def _config(folder: Path, place: str) -> Mapping[str, Any]:
    try:
        told: Mapping[str, Any] = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise StageError(f"`{place}` is no LoRA adapter: {error}") from error
    return told


def _tensor_names(folder: Path, place: str) -> list[str]:
    from safetensors import SafetensorError, safe_open

    path = folder / "adapter_model.safetensors"
    try:
        with safe_open(path, framework="numpy") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise StageError(f"the weights of the adapter `{place}` cannot be read: {error}") from error


def _module_of(tensor_name: str) -> str:
    name = tensor_name.removeprefix("base_model.model.")
    return name.partition(".lora_")[0].removesuffix(".modules_to_save")


def check(adapter: Adapter, ignored: list[str], has_effect: bool) -> None:
    """Raise StageError if vLLM leaves out modules of an adapter, or it changes nothing."""
    if ignored:
        named = ", ".join(f"`{module}`" for module in ignored[:MAX_NAMED])
        more = f" and {len(ignored) - MAX_NAMED} more" if len(ignored) > MAX_NAMED else ""
        raise StageError(
            f"vLLM ignores modules of the adapter `{adapter.folder}`: {named}{more}",
            hint="merge it into its base, or use the backend `transformers`",
        )
    if not has_effect:
        raise StageError(
            f"the adapter `{adapter.folder}` does not change what the model says",
            hint="it was never trained, or belongs to another model",
        )
