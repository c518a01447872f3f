"""Rows and settings for training tests."""

from __future__ import annotations

import hashlib
from typing import Any

from engine.records import ImagePart, Kind, Meta, Record, assistant, make_record, user
from tests.models import tiny

COLORS = ("red", "green", "blue", "black", "orange", "purple")
PICTURES = {hashlib.sha256(tiny.picture(c)).hexdigest(): tiny.picture(c) for c in COLORS}

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "vision_learning_rate": None,
    "num_train_epochs": 2,
    "max_steps": None,
    "global_batch_size": 4,
    "per_device_train_batch_size": None,
    "max_length": 256,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "max_grad_norm": 1.0,
    "precision": "auto",
    "gradient_checkpointing": False,
    "save_steps": 100,
    "logging_steps": 1,
}


def chat(*turns: Any, images: tuple[str, ...] = (), name: str = "row") -> Record:
    return make_record(images, turns, Meta(Kind.CHAT, name))


def color_rows(count: int = 12) -> list[Record]:
    """Return rows whose answer is the colour of their picture."""
    rows = []
    for number in range(count):
        color, digest = list(zip(COLORS, PICTURES, strict=True))[number % len(COLORS)]
        asked = user(ImagePart(0), "Colour" + "?" * (number % 3 + 1))
        rows.append(chat(asked, assistant(color), images=(digest,), name=f"row {number}"))
    return rows
