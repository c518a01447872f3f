"""The stage `convert`, and its place in a plan."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import LocalPins
from engine.pipeline import compile_plan
from engine.plan.stage import Plan
from engine.recipe.load import load_experiment
from engine.stages import convert, train
from tests.conversion import original
from tests.stages.running import Bench
from tests.stages.test_train import artifact, ports, settings
from tests.training.rows import color_rows

RECIPE = """
recipe: 1
name: mine
source: {use: pocket, world: cells, num_rows: 8}
generator: {model: pocket/synthesizer}
base: {model: pocket/base}
benchmarks: {domain: [pocket_cells]}
"""
CLIP = {"model": "openai/clip-vit-large-patch14-336", "revision": None}
LAYOUT = {"layout": "llava", "vision_tower": CLIP}
PAPERS = {"model": "Lin-Chen/open-llava-next-llama3-8b", **LAYOUT}
SEEDS = {"seed_tasks": {"use": "pocket", "world": "shapes", "num_rows": 8}}


def plan(folder: Path, **sections: Any) -> Plan:
    import yaml

    recipe = {**yaml.safe_load(RECIPE), **sections}
    path = folder / "mine.yaml"
    path.write_text(json.dumps(recipe))
    digest = lambda file: hashlib.sha256(file.read_bytes()).hexdigest()  # noqa: E731
    return compile_plan(load_experiment(path), LocalPins(folder, digest))


def readers(made: Plan, node: str) -> set[str]:
    """Return the nodes that start from the model of a node."""
    return {n.id for n in made.nodes if node in n.inputs.get("model", {}).values()}


def params(checkpoint: Path, tower: Path) -> dict[str, Any]:
    named = {"model": str(tower), "revision": None}
    return {"model": str(checkpoint), "revision": None, "layout": "llava", "vision_tower": named}


def test_a_model_that_can_be_loaded_is_not_converted(tmp_path: Path):
    assert not [node for node in plan(tmp_path).nodes if node.stage == "convert"]


def test_training_and_the_answers_of_the_base_start_from_the_converted_model(tmp_path: Path):
    made = plan(tmp_path, base=PAPERS)
    node = made.node("convert/base")

    assert readers(made, node.id) == {"train", "evaluate.answers/base/pocket_cells"}
    assert node.preimage["pins"].keys() == {PAPERS["model"], CLIP["model"]}
    assert node.origin["line"] == 1


def test_a_synthesizer_writes_or_is_tuned_from_the_converted_model(tmp_path: Path):
    asked = plan(tmp_path, generator=PAPERS)
    tuned = plan(tmp_path, generator={**PAPERS, "tune": SEEDS})

    assert readers(asked, "convert/generator") == {"generate"}
    assert readers(tuned, "convert/generator") == {"synthesizer"}


def test_a_checkpoint_that_base_and_generator_name_is_converted_once(tmp_path: Path):
    one = plan(tmp_path, base=PAPERS, generator={**PAPERS, "tune": SEEDS})
    other = {**PAPERS, "vision_tower": {**CLIP, "revision": "v1"}}
    two = plan(tmp_path, base=PAPERS, generator=other)

    assert [node.id for node in one.nodes if node.stage == "convert"] == ["convert/generator"]
    assert "train" in readers(one, "convert/generator")
    assert len([node for node in two.nodes if node.stage == "convert"]) == 2


def test_other_weights_of_the_tower_are_another_model(tmp_path: Path):
    tower = original.tower(tmp_path / original.TOWER)
    local = {**PAPERS, "vision_tower": {"model": f"./{original.TOWER}"}}
    before = plan(tmp_path, base=local).node("convert/base").key
    weights = tower / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes() + b" ")

    assert plan(tmp_path, base=local).node("convert/base").key != before


@pytest.mark.filterwarnings(
    "ignore:.hidden_state. is deprecated:FutureWarning"
)  # transformers' own
def test_training_goes_on_from_a_converted_model(tmp_path: Path):
    tower = original.tower(tmp_path / original.TOWER)
    checkpoint = original.checkpoint(tmp_path / "original", mm_vision_tower=str(tower))
    bench = Bench(tmp_path)
    made = bench.run(convert.STAGE, params(checkpoint, tower))
    rows = artifact(tmp_path / "mix", train=color_rows())
    short = settings(checkpoint)["training"] | {"max_steps": 2, "max_length": 2048}
    trained = bench.run(train.STAGE, settings(checkpoint, training=short), ports(rows, model=made))
    before, after = (original.load(one.file("model")) for one in (made, trained))

    assert made.manifest.counts["new rows"] == 320 - len(original.words_of())
    assert bench.progress[0][2] == "tensors"
    assert trained.manifest.counts["steps"] == 2
    assert after.keys() == before.keys()
    assert not all((after[name] == value).all() for name, value in before.items())
