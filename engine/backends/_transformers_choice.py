"""How the next token is chosen: the likeliest, or a draw that depends on the request alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from engine.backends import Sampling
from engine.backends._talk import Prompt


def stream_of(prompt: Prompt, sampling: Sampling) -> Any:
    """Return a random stream named by a request's text, its images and the seed."""
    import torch

    name = f"{sampling.seed}/{prompt.text}/{'/'.join(prompt.digests)}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(seed)


def chosen(logits: Any, sampling: Sampling, streams: Sequence[Any]) -> Any:
    """Return a token for each row; noise makes the likeliest a draw (Gumbel 1954)."""
    import torch

    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    scores = within(logits.float() / sampling.temperature, sampling.top_p)
    drawn = torch.stack([torch.rand(scores.shape[1], generator=stream) for stream in streams])
    gumbel = -torch.log(-torch.log(drawn.clamp(1e-20, 1 - 1e-7)))
    return (scores + gumbel.to(scores.device)).argmax(dim=-1)


def within(scores: Any, top_p: float) -> Any:
    """Rule out all but the likeliest tokens that reach `top_p` together (Holtzman et al. 2020)."""
    if top_p >= 1:
        return scores
    ordered, places = scores.sort(dim=-1, descending=True)
    likely = ordered.softmax(dim=-1)
    is_out = likely.cumsum(dim=-1) - likely >= top_p  # the first token is never out
    return scores.masked_fill(is_out.scatter(-1, places, is_out), -float("inf"))
