"""The engine behind the command `adapt`: one YAML recipe in, an adapted multimodal LLM out."""

from __future__ import annotations

__version__ = "0.1.0"
