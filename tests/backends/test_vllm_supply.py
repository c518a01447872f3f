"""How many prompts vLLM is given at once; needs no vLLM."""

from __future__ import annotations

import pytest

from engine.backends._vllm_engine import _supply
from engine.backends.vllm import Params
from engine.plan.stage import Machine


@pytest.mark.parametrize(
    ("device", "seqs", "copies", "expected"),
    [
        ("cpu", 256, 1, (320, 32)),  # a few wait, and they come in groups
        ("cpu", 4, 1, (16, 1)),
        ("cpu", 256, 2, (640, 32)),
        ("cuda", 256, 1, (640, 1)),  # a batch in work, one and a half waiting
        ("cuda", 4, 2, (32, 1)),
    ],
)
def test_prompts_in_hand_grow_with_the_batch(
    device: str, seqs: int, copies: int, expected: tuple[int, int]
):
    params = Params(max_num_seqs=seqs, data_parallel_size=copies)

    assert _supply(params, Machine(device=device)) == expected
