from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import cli
from engine.diagnostics import ExitCode
from tests.cli.fake_adapt import command
from tests.rules.golden import ROOT
from tests.runtime.fake_stages import PlanBuilder

RECIPE = str(ROOT / "recipes" / "quickstart.yaml")


def fake(*flags: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a small plan of fake stages in a process of its own."""
    build = PlanBuilder()
    build.add("count")
    build.add("double", "count")
    words = command(build.plan(), folder, *flags)
    variables = {**os.environ, "PYTHONPATH": str(folder / "packages")}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=variables)


def with_ray(folder: Path, text: str) -> None:
    """Put a Ray of our own before the one that may be installed."""
    (folder / "packages").mkdir()
    (folder / "packages" / "ray.py").write_text(text)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["run", RECIPE, *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_slurm_gets_a_script_and_nothing_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "a-secret-value")
    file = tmp_path / "job.sbatch"
    store = tmp_path / "store"
    words = ("--executor", "slurm", "--store", str(store), "--on", "h100", "--gpus", "2")
    code, _, said = run(capsys, *words, "-o", str(file))

    assert (code, said) == (ExitCode.DONE, f"wrote {file}\n")
    text = file.read_text()
    assert "#SBATCH --gpus-per-node=h100:2\n" in text
    assert f"run {RECIPE} --store {store} --executor local &" in text
    assert "HF_TOKEN" in text
    assert "a-secret-value" not in text
    assert not (store / "runs").exists()


def test_a_job_on_a_cpu_asks_for_no_gpu(capsys: pytest.CaptureFixture[str]):
    code, text, _ = run(capsys, "--executor", "slurm", "--device", "cpu", "--threads", "12")

    assert code == ExitCode.DONE
    assert "gpu" not in text
    assert "#SBATCH --cpus-per-task=12\n" in text


def test_a_spot_job_needs_a_store_that_outlives_its_machine(
    capsys: pytest.CaptureFixture[str],
):
    code, _, said = run(capsys, "--executor", "skypilot")

    assert code == ExitCode.REQUEST_WRONG
    assert "error[store-not-shared]" in said


def test_flags_of_job_files_mean_nothing_in_a_run(capsys: pytest.CaptureFixture[str]):
    code, _, said = run(capsys, "-o", "file")

    assert code == ExitCode.REQUEST_WRONG
    assert "error[wrong-flag]: `-o` is of job files" in said


def test_a_cluster_that_does_not_answer_is_told_at_once(tmp_path: Path):
    done = fake("--executor", "ray", "--ray-address", "127.0.0.1:1", folder=tmp_path)

    assert done.returncode == ExitCode.REQUEST_WRONG
    assert "error[no-ray-cluster]: no Ray cluster answers at `127.0.0.1:1`" in done.stderr
    assert "ray start --head" in done.stderr


def test_a_run_with_nothing_to_do_asks_no_cluster(tmp_path: Path):
    assert fake(folder=tmp_path).returncode == 0
    again = fake("--executor", "ray", "--ray-address", "127.0.0.1:1", folder=tmp_path)

    assert again.returncode == 0
    assert "every stage is cached (2 nodes): nothing to run" in again.stdout


def test_a_missing_package_is_told_with_the_way_to_get_it(tmp_path: Path):
    with_ray(tmp_path, "raise ImportError('there is no Ray')")
    done = fake("--executor", "ray", folder=tmp_path)

    assert done.returncode == ExitCode.REQUEST_WRONG
    assert "error[no-ray]: Ray is missing: there is no Ray" in done.stderr
    assert "pip install 'adapt-mllm[ray]'" in done.stderr


def test_a_cluster_of_another_version_is_told(tmp_path: Path):
    text = "Version mismatch: The cluster was started with: Ray: 2.50.0"
    with_ray(tmp_path, f"def init(**settings): raise RuntimeError({text!r})")
    done = fake("--executor", "ray", folder=tmp_path)

    assert done.returncode == ExitCode.REQUEST_WRONG
    assert f"error[ray-version]: the Ray cluster at `auto` is of another version: {text}" in (
        done.stderr
    )


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379"])
def test_a_wrong_address_of_a_cluster_is_told_before_ray_is_loaded(
    address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delitem(sys.modules, "ray", raising=False)  # other tests load it
    code, _, said = run(
        capsys, "--executor", "ray", "--ray-address", address, "--store", str(tmp_path)
    )

    assert code == ExitCode.REQUEST_WRONG
    assert f"error[wrong-ray-address]: '{address}' is not the address of a Ray cluster" in said
    assert "ray" not in sys.modules
