"""The bundle in the hands of check-jsonschema, which reads YAML by ruamel, not as we do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.recipe.bundle import benchmark_bundle, bundle

ROOT = Path(__file__).parent.parent.parent
BUNDLE = ROOT / "schemas" / "bundle.schema.json"
WRONG = ROOT / "tests" / "wrong_recipes"
# It ends in a RecursionError on a YAML alias that stands inside itself.
BREAKS_IT = {"alias_inside_itself"}
CASES = sorted({path.stem for path in WRONG.glob("*.yaml")} - BREAKS_IT)

# What no schema can see: it knows one file, and in it one value at a time.
UNSEEN = {
    "another file": {"circle_of_parents", "grandparent", "unknown_parent", "wrong_benchmark_file"},
    "names that a user may add to": {"metric_of_another_scorer", "unknown_benchmark"},
    "what a prompt or model is": {
        *("judge_without_labels", "prompt_of_another_place", "task_types_of_a_dialogue"),
        "order_with_settings_of_a_dialogue",
    },
    "two places that do not go together": {
        *("arm_with_a_cross_field_mistake", "batch_larger_than_whole", "benchmark_in_both_panels"),
        *("layout_without_tower", "repair_without_judge", "samples_without_temperature"),
        "adapter_on_a_tuned_model",
        *("empty_stage", "equal_arms", "generator_without_source", "holdout_without_source"),
        *("nothing_to_train_on", "random_weights_with_lora", "rate_of_frozen_vision"),
        *("replay_for_nothing", "replay_without_rows", "sections_that_need_each_other"),
        "trained_on",
    },
    "a text that stands for something else": {"environment_reference"},
    "how a number is written": {"leading_zero"},
}


def marked(paths: Iterable[Path], schema: Path = BUNDLE) -> dict[str, list[str]]:
    """Return what is printed about each file that is not valid, by its stem."""
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), "-o", "json"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    said: dict[str, Any] = json.loads(done.stdout)
    result: dict[str, list[str]] = {}
    for error in (*said.get("errors", []), *said.get("parse_errors", [])):
        result.setdefault(Path(error["filename"]).stem, []).append(error.get("message", ""))
    return result


@cache
def marked_wrong_recipes() -> dict[str, list[str]]:
    return marked(WRONG / f"{case}.yaml" for case in CASES)


def test_nothing_is_marked_in_a_shipped_recipe_or_parent():
    assert marked((ROOT / "recipes").glob("**/[!.]*.yaml")).keys() == {
        path.stem for path in (ROOT / "recipes" / "benchmarks").glob("*.yaml")
    }  # those have a schema of their own


def test_nothing_is_marked_in_a_shipped_benchmark(tmp_path: Path):
    schema = tmp_path / "benchmark.json"
    schema.write_text(json.dumps(benchmark_bundle()))

    assert marked((ROOT / "recipes" / "benchmarks").glob("*.yaml"), schema) == {}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_recipe_is_marked_unless_no_schema_can_see_it(case: str):
    is_unseen = any(case in cases for cases in UNSEEN.values())

    assert (case not in marked_wrong_recipes()) == is_unseen


def test_scalars_are_read_by_yaml_1_2(tmp_path: Path):
    path = tmp_path / "scalars.yaml"
    path.write_text(
        "recipe: 1\nname: no\nbase: {model: on, train: [vision]}\n"
        "training: {learning_rate: 1e-4, warmup_ratio: 0.0}\n"
    )

    assert marked([path]) == {}


@pytest.mark.parametrize("made", [bundle, benchmark_bundle])
def test_the_bundles_are_schemas_by_the_metaschema(made: Any, tmp_path: Path):
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(made()))
    command = [sys.executable, "-m", "check_jsonschema", "--check-metaschema", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
