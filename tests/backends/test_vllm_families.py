"""Every family, as training saves it, answers in vLLM what it answers in transformers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.models._loading import load_weights, open_kit
from engine.models._processors import PROCESSORS
from engine.training.loop import save_model
from tests.backends.test_vllm import INTERPRETER, asked
from tests.models.test_lora_families import EVERY

# vLLM prepares their images with torchvision, which resizes to other pixels than PIL does.
RESIZED = 0.02  # of a log-probability
REFUSED = {
    "mllama": "vLLM gave its architecture up",
    "paligemma": "vLLM lets the words of a prompt see only those before them",
    "gemma3": "on a CPU, vLLM lets the tokens of an image see only those before them",
}

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not INTERPRETER, reason="needs vLLM's own environment: `make test-vllm`"),
]


def saved(name: str, folder: Path) -> Path:
    """Return a tiny model of a family as training leaves it."""
    import torch

    kit = open_kit(str(EVERY[name](folder / "made")))
    model = load_weights(kit, dtype=torch.float32, device="cpu")
    save_model(model, kit, folder / "saved", torch.float32)
    return folder / "saved"


@pytest.mark.parametrize("name", sorted({*EVERY} - {*REFUSED}))
def test_a_family_answers_in_vllm_what_it_answers_in_transformers(name: str, tmp_path: Path):
    folder = str(saved(name, tmp_path))
    found = asked(INTERPRETER, "tests.backends.ask_family", "vllm", folder)
    expected = asked(sys.executable, "tests.backends.ask_family", "transformers", folder)
    is_resized = name in PROCESSORS
    same = [one == other for one, other in zip(found["raw"], expected["raw"], strict=True)]

    assert found["errors"] == expected["errors"] == [None] * len(same)
    assert sum(same) >= len(same) - is_resized
    for ours, theirs in zip(found["scores"], expected["scores"], strict=True):
        assert ours == pytest.approx(theirs, abs=RESIZED if is_resized else 1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_vllm_reads_in_another_way_is_refused(name: str, tmp_path: Path):
    folder = str(saved(name, tmp_path))

    found = asked(INTERPRETER, "tests.backends.vllm_session", "adapted", folder)
    assert found == {"error": f"vLLM does not answer as `{folder}`: {REFUSED[name]}"}
