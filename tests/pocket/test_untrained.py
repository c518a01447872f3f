"""The folders without weights are what the code in the package makes, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import package_data
from engine.pocket import untrained

MADE_FROM = {
    "base": "untrained_mllm",
    "synthesizer": "untrained_mllm",
    "judge": "untrained_judge",
}


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained")
    untrained.write(folder)
    return folder


@pytest.mark.parametrize("name", ["untrained_mllm", "untrained_judge"])
def test_tokenizer_and_configs_are_what_the_code_makes(remade: Path, name: str):
    made = {path.name: path.read_bytes() for path in (remade / name).iterdir()}
    shipped = {path.name: path.read_bytes() for path in package_data.pocket_model(name).iterdir()}

    assert made == shipped


@pytest.mark.parametrize(("name", "untrained_name"), MADE_FROM.items())
def test_a_trained_model_has_the_tokenizer_it_started_with(name: str, untrained_name: str):
    started_with = package_data.pocket_model(untrained_name) / "tokenizer.json"
    trained = package_data.pocket_model(name) / "tokenizer.json"

    assert trained.read_bytes() == started_with.read_bytes()
