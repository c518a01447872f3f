"""The architecture as tests: what no single room can promise by itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import plugin
from engine.catalog import LocalPins
from engine.pipeline import compile_plan
from engine.recipe.load import load_experiment
from engine.stages import STAGES
from tests.rules import golden

ENGINE = golden.ROOT / "engine"
HEAVY = ("torch", "transformers", "vllm", "peft", "datasets", "ray", "PIL", "accelerate", "numpy")
BANNED_NAMES = {"utils", "helpers", "common", "misc"}


def test_importing_every_module_loads_nothing_heavy():
    modules = [
        ".".join(path.relative_to(golden.ROOT).with_suffix("").parts)
        for path in sorted(ENGINE.rglob("*.py"))
        if not path.stem.startswith("_") and path.stem != "__main__"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_no_file_is_called_after_nothing():
    found = [p.name for p in ENGINE.rglob("*.py") if p.stem in BANNED_NAMES]

    assert found == []


@pytest.mark.parametrize("family", plugin.FAMILIES)
def test_every_plugin_file_exports_a_versioned_value(family: str):
    for name in plugin.names(family):
        assert plugin.load(family, name).version >= 1


def test_stage_names_are_unique_and_in_the_order_of_the_data_flow():
    order = [stage.name.split(".")[0] for stage in STAGES]

    assert list(dict.fromkeys(order)) == [
        "collect",
        "curate",
        "convert",
        "seeds",
        "synthesizer",
        "generate",
        "filter",
        "repair",
        "mix",
        "train",
        "evaluate",
        "report",
    ]


def test_nodes_are_wired_in_the_order_of_the_stages():
    position = {stage.name: number for number, stage in enumerate(STAGES)}
    plan = _plan("quickstart.yaml")
    stage_of = {node.id: node.stage for node in plan.nodes}

    backwards = [
        (node.id, source)
        for node in plan.nodes
        for labels in node.inputs.values()
        for source in labels.values()
        if position[stage_of[source]] > position[node.stage]
    ]

    assert backwards == []


def test_every_recipe_compiles_to_its_golden_plan():
    assert golden.plans() == json.loads(golden.PLANS.read_text("utf-8"))


def test_stage_code_moves_only_with_its_version():
    """After a change on purpose: bump `version` if results change, then `make golden`."""
    assert golden.stage_code() == json.loads(golden.STAGE_CODE.read_text("utf-8"))


def test_the_command_surface_moves_on_purpose():
    """A new wish is first an argument of a verb; a verb is added to the plan of the house first."""
    assert golden.surface() == json.loads(golden.SURFACE.read_text("utf-8"))


def test_every_verb_prints_json_when_asked():
    for verb, taken in golden.surface().items():
        below = {word.partition(" ")[0] for word in taken if " " in word and word[0].isalpha()}
        wanted = {f"{name} --json" for name in below & {"gc", "verify", "export", "import"}}
        assert (wanted or {"--json"}) <= set(taken), verb


def test_used_prompts_are_frozen():
    """Do not edit a template that a run may have used: add the next version instead."""
    assert golden.prompts() == json.loads(golden.PROMPTS.read_text("utf-8"))


def test_compiling_twice_gives_equal_plans_without_absolute_paths():
    first, second = _plan("quickstart.yaml"), _plan("quickstart.yaml")

    assert first == second
    assert str(golden.ROOT) not in repr(first.nodes)


def test_a_comment_moves_no_key(tmp_path: Path):
    original = golden.ROOT / "recipes" / "quickstart.yaml"
    copy = tmp_path / "quickstart.yaml"
    copy.write_text("# a comment\n" + original.read_text("utf-8").replace("1.0e-3", "0.001"))

    keys = [node.key for node in _plan_of(original).nodes]
    assert [node.key for node in _plan_of(copy).nodes] == keys


def test_no_machine_path_stands_in_the_engine():
    pattern = re.compile(r"/(home|root|work|tmp)/")
    found = [p.name for p in ENGINE.rglob("*.py") if pattern.search(p.read_text("utf-8"))]

    assert found == []


def _plan(name: str):
    return _plan_of(golden.ROOT / "recipes" / name)


def _plan_of(path: Path):
    return compile_plan(load_experiment(path), LocalPins(path.parent, golden._file_digest))
