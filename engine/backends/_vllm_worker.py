"""What vLLM's worker process is asked about an adapter; the class is mixed into the worker.

It is the one place that looks into vLLM's own objects, because nothing else tells which modules of
an adapter were applied.
"""

from __future__ import annotations

from typing import Any


class AdapterReport:
    """A method that the worker gets beside its own."""

    def ignored_adapter_modules(self) -> list[str]:
        """Return the modules of loaded adapters that change no layer of the model."""
        worker: Any = self
        manager = worker.model_runner.lora_manager._adapter_manager
        ignored = set()
        for adapter in manager._registered_adapters.values():
            used = [manager._get_lora_layer_weights(adapter, name) for name in manager.modules]
            is_used = {id(weights) for weights in used}
            ignored |= {name for name, one in adapter.loras.items() if id(one) not in is_used}
        return sorted(ignored)
