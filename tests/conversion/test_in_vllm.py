"""One folder for both engines: what is converted, and what is trained, loads in vLLM as well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.models._loading import load_weights, open_kit
from engine.training.loop import save_model
from tests.conversion import original
from tests.conversion.test_llava import converted
from tests.models.test_families import llava_next
from tests.rules.golden import ROOT

INTERPRETER = os.environ.get("ADAPT_PYTHON_VLLM", "")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not INTERPRETER, reason="needs vLLM's own environment: `make test-vllm`"),
]


def test_vllm_answers_as_transformers_does(tmp_path: Path):
    import torch

    tower = original.tower(tmp_path / original.TOWER)
    made = converted(tmp_path, original.checkpoint(tmp_path / "original", tower), tower)
    kit = open_kit(str(llava_next(tmp_path / "base")))  # under the new names of transformers
    model = load_weights(kit, dtype=torch.float32, device="cpu")
    save_model(model, kit, tmp_path / "trained", torch.float32)
    folders = [str(made), str(tmp_path / "trained")]
    said = answers(sys.executable, "transformers", folders)

    assert all(text and num_tokens > 40 for text, num_tokens in said)  # most are of the image
    assert answers(INTERPRETER, "vllm", folders) == said


def answers(python: str, backend: str, folders: list[str]) -> list[Any]:
    command = [python, "-m", "tests.conversion.ask", backend, *folders]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stderr[-2000:]
    found: list[Any] = json.loads(lines[0].removeprefix("ANSWERS"))
    return found
