from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine import package_data
from engine.diagnostics import RequestError, Span
from engine.plugin import Use
from engine.recipe.load import load_experiment
from engine.recipe.model import Experiment

SMALL = """\
recipe: 1
name: small
source: {use: image_folder, path: pictures}
filters:
  pairs: [{use: image_size, min_side_px: 32}]
base: {model: pocket/base}
training:
  learning_rate: 1e-4
"""
REPLAY_ONLY = """\
recipe: 1
name: replay
mix:
  replay: {use: parquet, path: rows.parquet, task: chat}
  parts: {captions: 0, synthetic: 0, replay: 1}
base: {model: pocket/base, weights: random}
"""


def loaded(folder: Path, text: str, *overrides: str) -> Experiment:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return load_experiment(path, overrides)


def codes(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RequestError) as caught:
        loaded(folder, text, *overrides)
    return [d.code for d in caught.value.diagnostics]


def test_a_recipe_is_bound_with_every_default(tmp_path: Path):
    recipe = loaded(tmp_path, SMALL).recipe

    assert recipe.training.learning_rate == 1e-4
    assert recipe.training.max_grad_norm == 1.0
    assert recipe.base.backend.name == "transformers"
    assert isinstance(recipe.source, Use)
    assert recipe.source.settings["path"] == "pictures"
    assert recipe.generator is None
    assert recipe.folder == str(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("learning_rate: 1e-4", "learning_rate: 0.0001  # a comment"),
        ("learning_rate: 1e-4", "learning_rate: 1.0E-4\n  num_train_epochs: 1"),
        ("learning_rate: 1e-4", "learning_rate: ${rate}\nseed: 42"),
        ("base: {model: pocket/base}", "base:\n    method: full\n    model: 'pocket/base'"),
        ("min_side_px: 32", "min_side_px: 32.0"),
        ("min_side_px: 32", "min_side_px: 0x20, max_aspect_ratio: null"),
        ("{use: image_folder, path: pictures}", "{path: pictures, use: image_folder}"),
    ],
)
def test_two_texts_that_mean_the_same_give_equal_recipes(tmp_path: Path, before: str, after: str):
    text = SMALL.replace(before, after)
    if "${rate}" in text:
        text = text.replace("${rate}", "${base.lora.dropout}").replace(
            "model: pocket/base", "model: pocket/base, lora: {dropout: 0.0}"
        )
        text = text.replace("dropout: 0.0", "dropout: 0.0001")
        before_recipe = loaded(tmp_path, text.replace("${base.lora.dropout}", "1e-4")).recipe
    else:
        before_recipe = loaded(tmp_path, SMALL).recipe
    after_recipe = loaded(tmp_path, text).recipe

    assert after_recipe == before_recipe
    assert repr(_without_places(after_recipe)) == repr(_without_places(before_recipe))


def _without_places(recipe: object) -> dict[str, object]:
    names = ("source", "filters", "mix", "base", "training", "benchmarks")
    return {name: getattr(recipe, name) for name in names}


def test_another_value_gives_another_recipe(tmp_path: Path):
    other = loaded(tmp_path, SMALL, "training.learning_rate=2e-4").recipe

    assert other != loaded(tmp_path, SMALL).recipe


def test_places_of_values_sections_and_defaults(tmp_path: Path):
    recipe = loaded(tmp_path, SMALL).recipe
    file = str(tmp_path / "r.yaml")

    assert recipe.span("training", "learning_rate") == Span(file, 8, 18)
    assert recipe.span("training") == Span(file, 7, 1)
    assert recipe.span("training", "max_length") == Span(file, 7, 1)
    assert recipe.span("filters", "pairs", 0) == Span(file, 5, 11)
    assert recipe.span("benchmarks") == Span(file, 1, 1)


def test_parts_follow_from_what_there_is(tmp_path: Path):
    parts = loaded(tmp_path, SMALL).recipe.mix.parts
    with_generator = SMALL + "generator: {model: pocket/synthesizer}\n"
    all_parts = loaded(tmp_path, with_generator).recipe.mix.parts

    assert (parts.captions, parts.synthetic, parts.replay) == (1.0, 0.0, 0.0)
    assert (all_parts.captions, all_parts.synthetic, all_parts.replay) == (1.0, 1.0, 0.0)


def test_replay_alone_needs_no_source(tmp_path: Path):
    recipe = loaded(tmp_path, REPLAY_ONLY).recipe

    assert recipe.source is None
    assert recipe.mix.replay is not None
    assert recipe.mix.replay.name == "parquet"


def test_without_a_matrix_there_is_one_arm(tmp_path: Path):
    experiment = loaded(tmp_path, SMALL)

    assert dict(experiment.arms) == {"main": experiment.recipe}


def test_each_arm_of_a_matrix_is_a_recipe_of_its_own(tmp_path: Path):
    matrix = "matrix:\n  plain: {}\n  unfiltered: {filters.pairs: [], training.max_steps: 5}\n"
    experiment = loaded(tmp_path, SMALL + matrix)

    assert list(experiment.arms) == ["plain", "unfiltered"]
    assert experiment.arms["plain"] == experiment.recipe
    assert experiment.arms["unfiltered"].filters.pairs == ()
    assert experiment.arms["unfiltered"].training.max_steps == 5
    assert experiment.recipe.training.max_steps is None


def test_a_value_of_an_arm_has_the_place_of_its_matrix_line(tmp_path: Path):
    experiment = loaded(tmp_path, SMALL + "matrix:\n  short: {training.max_steps: 5}\n")

    span = experiment.arms["short"].span("training", "max_steps")
    assert span == Span(str(tmp_path / "r.yaml"), 10, 31)


def test_the_same_mistake_in_every_arm_is_reported_once(tmp_path: Path):
    text = SMALL.replace("learning_rate", "lerning_rate") + "matrix: {a: {}, b: {}}\n"

    assert codes(tmp_path, text) == ["unknown-key"]


def test_mistakes_of_text_override_and_arm_are_reported_together(tmp_path: Path):
    text = SMALL.replace("min_side_px: 32", "min_side_px: 0")
    text += "matrix: {a: {training.foo: 1}}\n"

    found = codes(tmp_path, text, "base.modle=x", "name.x=1")
    assert sorted(found) == ["no-section", "out-of-range", "unknown-key", "unknown-key"]


def test_an_unknown_override_names_itself(tmp_path: Path):
    with pytest.raises(RequestError) as caught:
        loaded(tmp_path, SMALL, "base.modle=x")

    (found,) = caught.value.diagnostics
    assert (found.code, str(found.span)) == ("unknown-key", "--set base.modle")
    assert found.hint == "did you mean `model`?"


def test_a_benchmark_beside_the_recipe_wins_over_a_packaged_one(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "slake.yaml").write_text(
        "description: mine\nsource: {use: parquet, path: x.parquet, task: questions}\n"
        "metric: open\nlicence: mine\n"
    )
    recipe = loaded(tmp_path, SMALL + "benchmarks: {domain: [slake, holdout]}\n").recipe

    assert list(recipe.benchmark_specs) == ["slake"]
    assert recipe.benchmark_specs["slake"].description == "mine"
    assert recipe.benchmark_specs["slake"].prompt == "bare@1"


def test_a_metric_that_the_scorer_lacks_is_a_mistake_of_the_benchmark(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "mine.yaml").write_text(
        "description: mine\nsource: {use: parquet, path: x.parquet}\nlicence: mine\n"
        "metric: opne\nmetric_by_type: {yes_no: closde}\n"
    )

    text = SMALL + "benchmarks: {domain: [mine]}\n"
    assert codes(tmp_path, text) == ["unknown-metric", "unknown-metric"]


def test_the_resolved_recipe_can_be_loaded_again(tmp_path: Path):
    experiment = loaded(tmp_path, SMALL + "matrix: {short: {training.max_steps: 5}}\n")
    again = loaded(tmp_path, json.dumps(experiment.raw, indent=1))

    assert again.recipe == experiment.recipe
    assert dict(again.arms) == dict(experiment.arms)
    assert again.raw == experiment.raw


RECIPES = [
    path
    for path in sorted(package_data.folder("recipes").rglob("*.yaml"))
    if path.parent.name not in ("base", "benchmarks")
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_packaged_recipe_loads(path: Path):
    experiment = load_experiment(path)

    assert experiment.recipe.name.endswith(path.stem)
    assert experiment.recipe.description


@pytest.mark.parametrize(
    "path", sorted(package_data.folder("recipes").glob("benchmarks/*.yaml")), ids=lambda p: p.stem
)
def test_every_packaged_benchmark_loads(path: Path, tmp_path: Path):
    text = SMALL + f"benchmarks: {{domain: [{path.stem}]}}\n"

    assert list(loaded(tmp_path, text).recipe.benchmark_specs) == [path.stem]


@pytest.mark.parametrize(
    "path", sorted(package_data.folder("recipes").glob("base/*.yaml")), ids=lambda p: p.stem
)
def test_every_packaged_parent_loads_under_a_child(path: Path, tmp_path: Path):
    text = SMALL.replace("base: {model: pocket/base}\n", f"extends: base/{path.name}\n")
    recipe = loaded(tmp_path, text).recipe

    assert recipe.base.model != "pocket/base"


def test_loading_imports_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from engine.recipe.load import load_experiment\n"
        "load_experiment(Path('recipes/pocket_ablation.yaml'))\n"
        "heavy = {'torch', 'transformers', 'datasets', 'PIL', 'numpy', 'pyarrow', 'omegaconf',\n"
        "         'jinja2', 'rich', 'jsonschema'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
