"""Answers of a given form: rules out every token with which no document of a JSON Schema goes on.

llguidance knows the grammar and the bytes of each token; it is an extra, `structured`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.diagnostics import StageError

# Enough for an indented document; without a bound, a weak model writes spaces for ever.
WHITESPACE = r"[\x20\x0A\x0D\x09]{0,16}"


@dataclass(slots=True)
class Guides:
    """The grammars of one model, each compiled once."""

    tokenizer: Any
    _known: dict[tuple[str, tuple[int, ...]], Any] = field(default_factory=dict)

    def guide(self, schema: str, end_ids: tuple[int, ...]) -> Any:
        """Return a matcher at the begin of an answer. Raise StageError if it cannot be made."""
        if (schema, end_ids) not in self._known:
            self._known[schema, end_ids] = self._compiled(schema, end_ids)
        return self._known[schema, end_ids].deep_copy()

    def _compiled(self, schema: str, end_ids: tuple[int, ...]) -> Any:
        try:
            from llguidance import LLMatcher, hf
        except ImportError as error:
            raise StageError(
                "answers of a given form need the package `llguidance`, which is not installed",
                hint='pip install "adapt-mllm[structured]"',
            ) from error
        tokens = hf.from_tokenizer(self.tokenizer, eos_token=list(end_ids) or None)
        try:
            grammar = LLMatcher.grammar_from_json_schema(
                schema, overrides={"whitespace_pattern": WHITESPACE}
            )
        except ValueError as error:
            raise StageError(f"the form of the answer is no JSON Schema: {error}") from error
        matcher = LLMatcher(tokens, grammar, log_level=0)
        if matcher.is_error():
            raise StageError(f"the form of the answer cannot be kept: {matcher.get_error()}")
        return matcher


def allowed(logits: Any, guides: Sequence[Any]) -> Any:
    """Return logits with the tokens ruled out that a row's guide refuses; a guide may be None."""
    import numpy as np
    import torch

    if not any(guides):
        return logits
    size = logits.shape[-1]
    is_out = np.zeros(logits.shape, dtype=bool)
    for row, guide in enumerate(guides):
        if guide is not None and not guide.is_stopped():
            bits = np.frombuffer(guide.compute_bitmask(), dtype=np.uint8)
            found = np.unpackbits(bits, bitorder="little")[:size].astype(bool)
            is_out[row, len(found) :] = True
            is_out[row, : len(found)] = ~found
    return logits.masked_fill(torch.from_numpy(is_out).to(logits.device), -float("inf"))
