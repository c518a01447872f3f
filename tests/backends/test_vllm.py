"""vLLM and transformers write the same greedy answers, and a run uses vLLM from its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runtime import runs
from engine.runtime.store import Store
from tests.rules.golden import ROOT

INTERPRETER = os.environ.get("ADAPT_PYTHON_VLLM", "")
NUM_PAIRS = 32
RECIPE = f"""
recipe: 1
name: small
source: {{use: pocket, world: cells, num_rows: {NUM_PAIRS}}}
generator:
  model: pocket/synthesizer
  backend: {{use: vllm, max_model_len: 512}}
  prompt: synthesize@1
  max_new_tokens: 80
filters:
  tasks:
    - use: consistency
      judge: {{model: pocket/judge, backend: {{use: vllm, max_model_len: 512}}}}
      prompt: consistency_pocket@1
      as_chat: true
mix: {{pipeline: single_stage, parts: {{synthetic: 1.0, captions: 1.0}}}}
base: {{model: pocket/base, method: full, train: [language]}}
training: {{learning_rate: 1.0e-3, global_batch_size: 8}}
benchmarks: {{domain: [pocket_cells], scorer: strict}}
"""

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not INTERPRETER, reason="needs vLLM's own environment: `make test-vllm`"),
]


@pytest.mark.parametrize("model", ["base", "synthesizer", "judge"])
def test_vllm_writes_what_transformers_writes(model: str):
    assert _answers(INTERPRETER, "vllm", model) == _answers(sys.executable, "transformers", model)


def _answers(python: str, backend: str, model: str) -> list[list[str]]:
    command = [python, "-m", "tests.backends.ask_backend", backend, model]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stderr[-2000:]
    found: list[list[str]] = json.loads(lines[0].removeprefix("ANSWERS"))
    return found


def test_a_run_asks_vllm_for_its_tasks_and_labels(tmp_path: Path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "engine.cli", "run", str(recipe), "--only", "filter", "--json"]
    command += ["--python", f"vllm={INTERPRETER}", "--store", str(tmp_path / "store")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    store = Store(tmp_path / "store")
    run = runs.newest(store)
    assert run is not None
    filtered = store.get(run.plan().node("filter").key)
    assert filtered is not None

    tasks = list(filtered.records("kept"))
    assert len(tasks) >= NUM_PAIRS // 4
    labels = [row["reason"] for row in filtered.rows("dropped")]
    assert not [label for label in labels if label not in ("judge says no", "judge says open")]
