"""Training steps of the pocket MLLM on one CPU thread: which attention, which precision.

`python -m tests.bench.attention` prints the ratio of each variant to fused attention in float32,
all measured in this run. It is why the loop turns fused attention off for bfloat16 on CPUs.
"""

from __future__ import annotations

import time
from typing import Any

from engine import package_data

ROWS, TOKENS, IMAGE_TOKENS, IMAGE_ID, SIDE_PX = 16, 104, 16, 4, 64
STEPS = 8
VARIANTS = (("sdpa", False), ("eager", False), ("sdpa", True), ("eager", True))


def seconds_per_step(attention: str, *, is_half: bool) -> float:
    """Return the fastest of a few steps, forward and backward, on random rows."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(package_data.pocket_model("untrained_mllm"))
    model: Any = AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
    model.train()
    batch = _batch(config.text_config.vocab_size)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
            logits = model(**batch, use_cache=False).logits
        logits.float().logsumexp(-1).mean().backward()
        times.append(time.perf_counter() - start)
    return min(times)


def _batch(vocabulary: int) -> dict[str, Any]:
    import torch

    ids = torch.randint(8, vocabulary, (ROWS, TOKENS))
    ids[:, 3 : 3 + IMAGE_TOKENS] = IMAGE_ID
    pixels = torch.randn(ROWS, 1, 3, SIDE_PX, SIDE_PX)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def main() -> None:
    """Print the table."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    reference = seconds_per_step("sdpa", is_half=False)
    for attention, is_half in VARIANTS:
        taken = seconds_per_step(attention, is_half=is_half)
        precision = "bfloat16" if is_half else "float32"
        print(f"{attention:5} {precision:8} {reference / taken:4.2f} x the speed of sdpa float32")


if __name__ == "__main__":
    main()
