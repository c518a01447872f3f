"""A running batch of the backend `transformers`: rows are read, written on, leave and join.

Preparation is left to `generate` of transformers, which knows the positions and masks of every
family; it hands over to `prefilled` where it would begin to write (`custom_generate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEPT = (
    "past_key_values",
    "attention_mask",
    "position_ids",
    "mm_token_type_ids",
    "token_type_ids",
    "cross_attention_mask",
    "use_cache",
    "logits_to_keep",
)
BY_COLUMN = ("attention_mask", "position_ids", "mm_token_type_ids", "token_type_ids")


@dataclass(slots=True)
class Rows:
    """What a model needs to write the next token of each row, and its logits for it."""

    model: Any
    ids: Any
    state: dict[str, Any]  # all that goes into a forward pass, one column ahead of the ids
    logits: Any

    @property
    def width(self) -> int:
        """Return the columns so far, padding included."""
        return int(self.ids.shape[1])

    @property
    def can_leave(self) -> bool:
        """Tell whether single rows can be taken out of the cache."""
        from transformers.cache_utils import DynamicLayer

        return all(isinstance(layer, DynamicLayer) for layer in self._layers)

    @property
    def can_join(self) -> bool:
        """Tell whether the cache is one column for each column: no windows, no image columns."""
        return is_plain_cache(self.state["past_key_values"], self.width)

    @property
    def _layers(self) -> Sequence[Any]:
        found: Sequence[Any] = self.state["past_key_values"].layers
        return found

    def write(self, tokens: Any) -> None:
        """Write one token on each row and read it."""
        import torch

        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        made = self.model.prepare_inputs_for_generation(
            self.ids, next_sequence_length=1, **self.state
        )
        output = self.model(**made, return_dict=True)
        self.state = _after(self.model, output, self.state)
        self.logits = output.logits[:, -1]

    def keep(self, places: Sequence[int]) -> None:
        """Let all other rows leave, and columns that are padding for all that stay."""
        import torch

        chosen = torch.tensor(list(places), device=self.ids.device)
        self.ids, self.logits = self.ids[chosen], self.logits[chosen]
        for name, value in self.state.items():
            if isinstance(value, torch.Tensor):
                self.state[name] = value.index_select(_row_axis(name, value), chosen)
        self.state["past_key_values"].batch_select_indices(chosen)
        if self.can_join:
            self._trim(int(self.state["attention_mask"].any(dim=0).int().argmax()))

    def join(self, others: Rows) -> Rows:
        """Take further rows in; the narrower side is padded on the left."""
        import torch

        width = max(self.width, others.width)
        self._widen(width - self.width)
        others._widen(width - others.width)
        self.ids = torch.cat([self.ids, others.ids])
        self.logits = torch.cat([self.logits, others.logits])
        for name, value in self.state.items():
            if isinstance(value, torch.Tensor):
                axis = _row_axis(name, value)
                self.state[name] = torch.cat([value, others.state[name]], dim=axis)
        for mine, theirs in zip(self._layers, others._layers, strict=True):
            mine.keys = torch.cat([mine.keys, theirs.keys])
            mine.values = torch.cat([mine.values, theirs.values])
        return self

    def _trim(self, num: int) -> None:
        self.ids = self.ids[:, num:]
        for name in BY_COLUMN:
            if name in self.state:
                self.state[name] = self.state[name][..., num:]
        for layer in self._layers if num else ():
            # A slice alone would keep the whole tensor in memory.
            layer.keys = layer.keys[..., num:, :].contiguous()
            layer.values = layer.values[..., num:, :].contiguous()

    def _widen(self, num: int) -> None:
        from torch.nn.functional import pad

        if not num:
            return
        self.ids = pad(self.ids, (num, 0))
        for name in BY_COLUMN:
            if name in self.state:
                self.state[name] = pad(self.state[name], (num, 0))
        for layer in self._layers:
            layer.keys = pad(layer.keys, (0, 0, num, 0))
            layer.values = pad(layer.values, (0, 0, num, 0))


def prefilled(model: Any, batch: Mapping[str, Any], pad_id: int) -> Rows:
    """Read prompts that are padded on the left; `batch` may hold the cache of their beginning."""
    from transformers import GenerationConfig

    inner: Any = getattr(model, "model", None)
    if hasattr(inner, "rope_deltas"):
        inner.rope_deltas = None  # of the batch before: it would move the positions of this one
    rows: Rows = model.generate(
        **batch,
        generation_config=GenerationConfig(
            max_new_tokens=1, do_sample=False, use_cache=True, pad_token_id=pad_id
        ),
        custom_generate=_read,
    )
    return rows


def is_plain_cache(cache: Any, width: int) -> bool:
    """Tell whether each layer of a cache holds each column."""
    from transformers.cache_utils import DynamicLayer

    return all(
        type(layer) is DynamicLayer and layer.get_seq_length() == width for layer in cache.layers
    )


def _read(
    model: Any,
    input_ids: Any,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **state: Any,
) -> Rows:
    """Read the prompts where `generate` would begin to write."""
    import torch

    known = state["past_key_values"].get_seq_length()
    made = model.prepare_inputs_for_generation(
        input_ids,
        next_sequence_length=input_ids.shape[1] - known if known else None,
        is_first_iteration=True,
        **{name: value for name, value in state.items() if name not in ("synced_gpus", "streamer")},
    )
    output = model(**made, return_dict=True)
    if state.get("attention_mask") is None:  # left out where nothing is padding; others may join
        state["attention_mask"] = torch.ones_like(input_ids)
    state = _after(model, output, state)
    kept = {name: state[name] for name in KEPT if state.get(name) is not None}
    return Rows(model, input_ids, kept, output.logits[:, -1])


def _after(model: Any, output: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state for the next token; some families name this argument without a default."""
    found: dict[str, Any] = model._update_model_kwargs_for_generation(
        output, state, is_encoder_decoder=False
    )
    return found


def _row_axis(name: str, value: Any) -> int:
    """Return the axis of rows: some families have several positions for one token."""
    return int(value.dim() - 2) if name == "position_ids" else 0
