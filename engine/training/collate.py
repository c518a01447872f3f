"""Batches: which rows together, in which order, and as which tensors.

The order is a function of seed and epoch alone, so a resumed run needs to know only its step.
Rows of similar length share a batch; which ones, and the order of batches, stays random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine.models._inputs import InputMaker
from engine.training.masks import Example

BATCHES_SORTED_TOGETHER = 16
IGNORED = -100


def batches_of_epoch(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return the row numbers of every batch of an epoch; each row once, the smallest batch last."""
    import numpy as np

    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    num_full = len(order) // batch_size * batch_size
    full = order[:num_full].reshape(-1, batch_size)
    batches: list[list[int]] = []
    for first in range(0, len(full), BATCHES_SORTED_TOGETHER):
        group = full[first : first + BATCHES_SORTED_TOGETHER].ravel()
        by_length = sorted(group.tolist(), key=lambda row: (lengths[row], row))
        batches += [
            by_length[place : place + batch_size] for place in range(0, len(group), batch_size)
        ]
    shuffled = [batches[place] for place in random.permutation(len(batches))]
    rest = order[num_full:].tolist()
    return [*shuffled, rest] if rest else shuffled


def batches_from(
    lengths: Sequence[int], batch_size: int, seed: int, first_step: int, num_steps: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield (step, row numbers) for steps `first_step` up to `num_steps`, counting from 0."""
    per_epoch = -(-len(lengths) // batch_size)
    epoch, batches = -1, []
    for step in range(first_step, num_steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            batches = batches_of_epoch(lengths, batch_size, seed, epoch)
        yield step, batches[step % per_epoch]


def collate(rows: Sequence[Example], inputs: InputMaker) -> tuple[dict[str, Any], Any]:
    """Return model inputs, padded on the right, and labels that are -100 where no loss is."""
    import numpy as np
    import torch

    kit = inputs.kit
    width = max(len(row) for row in rows)
    width = -(-width // 8) * 8  # few distinct shapes: allocators and kernels reuse what they have
    ids = np.full((len(rows), width), kit.pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row.ids
        mask[number, : len(row)] = 1
        labels[number, : len(row)] = np.where(row.is_trained, row.ids, IGNORED)
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    batch |= _images(rows, inputs, width)
    if kit.family.marks_image_tokens:
        marked = batch["input_ids"] == kit.image_token_id
        batch[kit.family.marks_image_tokens] = marked.long()
    if kit.family.marks_answer:
        begun = np.logical_or.accumulate(labels != IGNORED, axis=1)
        batch[kit.family.marks_answer] = torch.from_numpy(begun.astype(np.int64))
    return batch, torch.from_numpy(labels)


def _images(rows: Sequence[Example], inputs: InputMaker, width: int) -> dict[str, Any]:
    import torch

    digests = [row.digests for row in rows]
    if not any(digests):
        return {}
    if inputs.kit.family.image_axis is not None:
        return inputs.image_batch(digests)
    made = inputs.whole_batch([row.text for row in rows], digests, "right")
    made.pop("input_ids")
    made.pop("attention_mask")
    across = made.get("cross_attention_mask")  # the one tensor beside these that is as wide as text
    if across is not None:
        filled = torch.zeros((len(rows), width, *across.shape[2:]), dtype=across.dtype)
        filled[:, : across.shape[1]] = across
        made["cross_attention_mask"] = filled
    return made
