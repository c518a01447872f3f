"""The shipped recipes: each plans offline, its card tells what a reader needs, its numbers hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import package_data
from engine.catalog import LocalPins
from engine.diagnostics import RequestError
from engine.pipeline import compile_plan
from engine.plan.stage import Plan
from engine.recipe.load import load_experiment
from tests.rules.golden import ROOT

FOLDER = package_data.folder("recipes")
RECIPES = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob("*.yaml")
    if path.parent.name not in ("base", "benchmarks")
)
ROOTS = ("biomed", "food", "remote_sensing")
CARDS = (*ROOTS, "biomed_raw", "remote_sensing_40k")
CHILDREN = {"llava_next": "llava_next_llama3_8b", "llama_3_2": "llama_3_2_11b_vision"}
MODERN = ("qwen2_5_vl_3b", "qwen3_vl_2b", "internvl3_2b", "smolvlm2_2_2b")
# What a user fetches before such a recipe runs, as far as a plan looks at it.
FETCHED = (
    *("pmc_raw/llava_med_alignment_500k.json", "pmc_raw/images/1.jpg"),
    *("remote_sensing/nwpu.jsonl", "remote_sensing/nwpu/1.jpg"),
    *("stamps/animals/cat.png", "stamps/animals/cat.txt"),
    *("vision_flan/metadata.json", "vision_flan/image_191-task_1k.zip"),
    "vision_flan/ALLaVA-Caption-VFLAN-4V.json",
    "vision_flan/ALLaVA-Instruct-VFLAN-4V.json",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out the recipes with what they want to be fetched; return their folder."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(FOLDER, folder / "recipes")
    for name in FETCHED:
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"[]")
    return folder / "recipes"


def plan_of(path: Path, *overrides: str) -> Plan:
    experiment = load_experiment(path, overrides)
    return compile_plan(experiment, LocalPins(path.parent, lambda file: file.name))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_plans_offline(name: str, checkout: Path) -> None:
    plan = plan_of(checkout / name)

    assert plan.nodes[-1].id == "report"


@pytest.mark.parametrize("name", ["biomed_raw", "remote_sensing_40k", "biomed_tuned"])
def test_what_was_not_fetched_is_named_at_its_line(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        plan_of(FOLDER / f"{name}.yaml")

    assert {item.code for item in caught.value.diagnostics} == {"not-found"}
    assert all(item.span is not None for item in caught.value.diagnostics)


@pytest.mark.parametrize("root", [*ROOTS, "biomed_raw"])
@pytest.mark.parametrize("suffix", CHILDREN)
def test_a_child_states_what_the_parent_of_its_base_states(
    root: str, suffix: str, checkout: Path
) -> None:
    text = f"recipe: 1\nname: x\nextends: base/{CHILDREN[suffix]}.yaml\nsource: {{use: pocket}}\n"
    (checkout / "parent.yaml").write_text(
        text.replace("pocket", "pocket, world: cells, num_rows: 9")
    )
    parent = load_experiment(checkout / "parent.yaml").recipe
    child = load_experiment(checkout / f"{root}_{suffix}.yaml").recipe

    assert (parent.base, parent.training) == (child.base, child.training)
    origin = load_experiment(checkout / f"{root}.yaml").recipe
    assert (origin.source, origin.generator) == (child.source, child.generator)
    assert (origin.filters, origin.mix) == (child.filters, child.mix)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("base", MODERN)
def test_a_modern_base_is_one_line(root: str, base: str, checkout: Path) -> None:
    text = (FOLDER / "base" / f"{base}.yaml").read_text("utf-8")
    (model,) = re.findall(r"model: ([\w./-]+)", text)

    plan = plan_of(checkout / f"{root}.yaml", f"base.model={model}")

    assert {n.params["model"] for n in plan.nodes if n.stage == "train"} == {model}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_what_it_takes_and_what_to_expect(name: str) -> None:
    card = card_of(name)

    for word in ("Data:", "Cost", "Expected"):
        assert f"# {word}" in card, word
    if name in ROOTS:
        assert "# Licences of the benchmarks:" in card
        assert "# Gated: " in card
        assert "hf auth login" in card
        assert "# Where paper, notes and code disagree" in card


@pytest.mark.parametrize("name", [*ROOTS, *(f"{r}_{s}" for r in ROOTS for s in CHILDREN)])
def test_the_forecast_of_a_card_is_what_plan_prints(name: str) -> None:
    card = " ".join(line.lstrip("# ") for line in card_of(name).splitlines())
    ((command, told),) = re.findall(r"forecast of `adapt (plan [^`]+)`(.*?) of work in all", card)
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    for node, time in re.findall(r"(generate|filter|train) (~[\d.]+ (?:h|min))", told):
        assert re.search(rf"^  {node} .*{re.escape(time)}\b", done.stdout, flags=re.M), node
    assert f"to run: {told.split()[-2]} h of work" in done.stdout


def test_the_published_benchmarks_state_how_many_items_they_have() -> None:
    for root in ROOTS:
        recipe = load_experiment(FOLDER / f"{root}.yaml").recipe
        for name, spec in recipe.benchmark_specs.items():
            assert spec.expected_items, name
            parts = {kind: n for kind, n in spec.expected_items.items() if kind != "total"}
            assert not parts or sum(parts.values()) == spec.expected_items["total"]


def test_a_smoke_run_may_have_less_and_the_check_moves_no_key_of_collect() -> None:
    whole = plan_of(FOLDER / "biomed.yaml")
    smoke = plan_of(FOLDER / "biomed.yaml", "benchmarks.max_items=8")
    expected = {"benchmark": "slake", "items": {"total": 1061, "open": 645, "closed": 416}}

    for plan, wanted in ((whole, expected), (smoke, None)):
        params = {node.id: node.params for node in plan.nodes}
        assert params["collect/slake"]["expected"] == wanted
        assert params["evaluate.scores/slake"]["expected"] == wanted
    keys = [{n.id: n.key for n in plan.nodes}["collect/slake"] for plan in (whole, smoke)]
    assert keys[0] == keys[1]


def test_another_prompt_asks_again_and_trains_nothing_again() -> None:
    def keys(*overrides: str) -> dict[str, str]:
        plan = plan_of(FOLDER / "food.yaml", *overrides)
        return {node.id: node.key for node in plan.nodes if node.id != "report"}

    bare, brief = keys(), keys("benchmarks.prompt=brief@1")
    moved = {name.split("/")[0] for name in bare if bare[name] != brief[name]}

    assert moved == {"evaluate.answers", "evaluate.scores"}


def card_of(name: str) -> str:
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    return text[: re.search(r"^\w", text, flags=re.M).start()]  # type: ignore[union-attr]
