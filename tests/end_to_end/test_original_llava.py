"""A recipe that names an original LLaVA checkpoint, from the first node to the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conversion import original
from tests.rules.golden import ROOT

RECIPE = f"""
recipe: 1
name: mine
source: {{use: pocket, world: cells, num_rows: 16}}
generator:
  model: ./llava
  layout: llava
  vision_tower: {{model: ./{original.TOWER}}}
  max_new_tokens: 8
base:
  model: ./llava
  layout: llava
  vision_tower: {{model: ./{original.TOWER}}}
  train: [projector]
mix: {{parts: {{synthetic: 1.0, captions: 1.0}}}}
training: {{learning_rate: 1.0e-3, global_batch_size: 4, max_steps: 2, max_length: 2048}}
benchmarks: {{domain: [pocket_cells], max_items: 8}}
"""


def states(folder: Path, *changes: str) -> dict[str, str]:
    """Run the recipe; return what became of each node."""
    adapt(folder, "run", "mine.yaml", *changes)
    found: dict[str, Any] = json.loads(adapt(folder, "report", "--json"))
    return {node["id"]: node["state"] for node in found["nodes"]}


def adapt(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *words, "--store", "store"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_an_original_llava_is_converted_once_and_adapted(tmp_path: Path):
    tower = original.tower(tmp_path / original.TOWER)
    original.checkpoint(tmp_path / "llava", tower)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    first = states(tmp_path)
    again = states(tmp_path, "--set", "training.max_steps=1")

    assert set(first.values()) == {"ran"}
    assert [again["convert/generator"], again["train"]] == ["cached", "ran"]
