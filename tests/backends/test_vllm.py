"""vLLM and transformers give the same answers, and a run uses vLLM from its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.runtime import runs
from engine.runtime.store import Store
from tests.backends import adapters
from tests.models import tiny
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
    - use: needs_image
      model: {{model: pocket/base, backend: {{use: vllm, max_model_len: 512}}}}
      action: weigh
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
def test_vllm_answers_what_transformers_answers(model: str):
    command = ["tests.backends.ask_backend"]
    found = asked(INTERPRETER, *command, "vllm", model)
    expected = asked(sys.executable, *command, "transformers", model)

    assert found["raw"] == expected["raw"]
    for ours, theirs in zip(found["scores"], expected["scores"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


def test_a_draw_has_the_name_of_its_request_and_not_of_its_place():
    found = _session("judge")

    assert found["backwards"] == found["hot"]
    assert found["same"] == [found["hot"][0]] * 2
    assert found["other"] != found["hot"]
    assert found["narrow"] == found["greedy"] != found["hot"]
    assert found["many"] == [None] * 300  # more prompts than one step of the engine reads
    for text in found["json"]:
        written = json.loads(text)
        assert written["answer"] in ("yes", "no")
        assert written["number"] in (1, 2, 3)


def test_flows_are_fed_as_far_as_need_be_and_bad_requests_fail_alone():
    found = _session("base")

    assert [len(texts) for texts in found["results"]] == [1 + n % 3 for n in range(200)]
    assert all(texts == texts[:1] * len(texts) for texts in found["results"])
    assert found["results"][3][0] == found["alone"][0] == found["bad"][1][1]
    # Of 200 no more than 20 are in hand, so memory does not grow with the rows; two come at a time.
    assert found["started"] == [20] + [2] * 90
    assert found["processes"] == ["VLLM::EngineCore"]
    reasons = [error for error, _ in found["bad"]]
    assert reasons[0] == "not a picture of a known format"
    assert reasons[1] is None
    assert reasons[2].startswith("needs ")
    assert "2" in reasons[3]  # images at most
    assert reasons[4] is None
    assert found["late"]["error"].endswith("the model holds 1024")
    assert not found["late"]["is_cached"]  # or the engine would wait for what was never sent
    assert found["late"]["then"] is None
    assert found["late"]["text"]
    text, scores = found["lost"]["kept"]
    assert found["lost"]["lost"] == [text, pytest.approx(scores, abs=1e-3)]
    assert text
    assert len(scores) == 2
    assert found["died"] == "vLLM's engine died; its own log says why"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.idefics3(tmp_path_factory.mktemp("idefics3"))


LANGUAGE = r".*text_model.*(q_proj|v_proj|down_proj)"
TOWER = r".*(vision_model.*fc1|connector.*proj)"


@pytest.mark.parametrize("targets", [LANGUAGE, TOWER])
def test_an_adapter_changes_the_answers_as_with_peft(model: Path, tmp_path: Path, targets: str):
    adapter = adapters.write(model, tmp_path / "adapter", targets, scale=0.3)
    found = _session("adapted", str(model), str(adapter))
    scores = adapters.scores(model, adapter)

    assert found["scores"] == pytest.approx(scores, abs=1e-3)
    assert found["scores"] != pytest.approx(adapters.scores(model, None), abs=1e-3)


def test_an_adapter_without_effect_stops_the_run(model: Path, tmp_path: Path):
    adapter = adapters.write(model, tmp_path / "zero", LANGUAGE, scale=0.0)
    found = _session("adapted", str(model), str(adapter))

    assert found == {"error": f"the adapter `{adapter}` does not change what the model says"}


def test_a_model_that_is_asked_has_the_machine_for_itself():
    found = _session("one_by_one")

    assert found["engines"] == [1, 1, 1]
    assert found["left"] == []
    assert found["raw"][0] == found["raw"][2] != found["raw"][1]


def test_two_copies_of_a_model_share_the_requests():
    found = _session("copies")
    expected = asked(sys.executable, "tests.backends.ask_backend", "transformers", "judge")

    assert found == {"engines": 2, "raw": expected["raw"]}


def test_a_model_that_vllm_does_not_know_is_named(tmp_path: Path):
    folder = tiny.llama(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    changed = config | {"architectures": ["NoSuchForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(changed))

    expected = f"vLLM has no model `NoSuchForCausalLM`, which `{folder}` is"
    assert _session("adapted", str(folder)) == {"error": expected}


def _session(*arguments: str) -> Any:
    return asked(INTERPRETER, "tests.backends.vllm_session", *arguments)


def asked(python: str, *arguments: str) -> Any:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-m", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[0].removeprefix("ANSWERS"))


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
