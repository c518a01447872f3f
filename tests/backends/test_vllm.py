"""vLLM and transformers write the same greedy answers with the pocket models."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.rules.golden import ROOT

INTERPRETER = os.environ.get("ADAPT_PYTHON_VLLM", "")

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
