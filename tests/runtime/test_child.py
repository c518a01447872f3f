from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from engine.runtime import child
from engine.runtime.machine import Settings
from engine.runtime.scheduler import Placement
from tests.runtime.fake_stages import PlanBuilder

SETTINGS = Settings(store=Path("store"), pythons={"vllm": "/opt/vllm/python"})


def test_a_backend_with_an_interpreter_of_its_own_gets_it():
    build = PlanBuilder()
    build.add("count")
    plain = build.nodes[0]
    filters = [{"use": "consistency", "judge": {"model": "m", "backend": {"use": "vllm"}}}]
    judging = replace(plain, params={"filters": filters})

    assert child.interpreter(judging, SETTINGS, "python") == "/opt/vllm/python"
    assert child.interpreter(plain, SETTINGS, "python") == "python"


def test_another_interpreter_can_import_the_engine_and_nothing_else_of_ours(tmp_path: Path):
    variables = child.with_engine({}, tmp_path / "import")
    code = "import engine, importlib.util as u; print(engine.__version__, u.find_spec('yaml'))"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],  # -S: an environment without our packages
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split()[1] == "None"


def test_only_a_node_that_was_given_a_gpu_sees_one():
    inherited = {"CUDA_VISIBLE_DEVICES": "4,5"}
    light = child.environment(inherited, Placement(1), SETTINGS)
    second = child.environment(inherited, Placement(1, gpus=(1,)), SETTINGS)

    assert light["CUDA_VISIBLE_DEVICES"] == ""
    assert second["CUDA_VISIBLE_DEVICES"] == "5"


def test_offline_is_told_to_the_hub_libraries():
    online = child.environment({}, Placement(1), SETTINGS)
    offline = child.environment({}, Placement(1), replace(SETTINGS, is_offline=True))

    assert "HF_HUB_OFFLINE" not in online
    assert offline["HF_HUB_OFFLINE"] == offline["TRANSFORMERS_OFFLINE"] == "1"
