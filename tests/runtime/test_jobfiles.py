from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from engine.runtime import jobfiles
from engine.runtime.jobfiles import JobFile

GOLDEN = Path(__file__).with_name("job_files")
WHOLE = JobFile(
    name="radiology",
    source="adapt run radiology.yaml --executor slurm --on h100 --gpus 4",
    command=("adapt", "run", "my radiology.yaml", "--store", "/shared/adapt"),
    folder="/home/me/my recipes",
    threads=32,
    num_gpus=4,
    gpu_kind="h100",
    memory_gb=61.2,
    disk_gb=180.0,
    hours=26.2,
    secrets=("HF_TOKEN", "WANDB_API_KEY"),
    version="1.2.3",
)
LITTLE = JobFile(
    name="cells",
    source="adapt run cells.yaml --executor skypilot",
    command=("adapt", "run", "cells.yaml", "--store", "s3://bucket/adapt"),
    folder="/home/me",
    threads=8,
    num_gpus=1,
    version="1.2.3",
)


@pytest.mark.parametrize("name", ["whole", "little"])
def test_the_job_files_are_the_golden_ones(name: str):
    job = WHOLE if name == "whole" else LITTLE

    assert jobfiles.sbatch(job) == (GOLDEN / f"{name}.sbatch").read_text()
    assert jobfiles.skypilot(job) == (GOLDEN / f"{name}.sky.yaml").read_text()


def test_a_sky_task_is_yaml_that_asks_for_spot_and_goes_on_after_a_stop():
    task = yaml.safe_load(jobfiles.skypilot(WHOLE))

    assert task["workdir"] == "/home/me/my recipes"
    assert task["resources"] == {
        "cpus": "32+",
        "memory": "62+",
        "accelerators": "H100:4",
        "disk_size": 180,
        "use_spot": True,
        "job_recovery": {
            "strategy": "EAGER_NEXT_REGION",
            "max_restarts_on_errors": 0,
            "recover_on_exit_codes": [75],
        },
    }
    assert task["secrets"] == {"HF_TOKEN": None, "WANDB_API_KEY": None}
    assert task["run"] == "adapt run 'my radiology.yaml' --store /shared/adapt\n"


def submitted(tmp_path: Path, program: str, **variables: str) -> subprocess.Popen[bytes]:
    """Run the batch script as Slurm would, with a program in the place of `adapt`."""
    tools = {"program": program, "scontrol": f'echo "$@" >> {tmp_path}/scontrol.txt'}
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    job = replace(WHOLE, command=[str(tmp_path / "program")], folder=str(tmp_path), secrets=["KEY"])
    (tmp_path / "job.sbatch").write_text(jobfiles.sbatch(job))
    path = f"{tmp_path}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", tmp_path / "job.sbatch"],
        env={"PATH": path, "SLURM_JOB_ID": "17", **variables},
        stderr=subprocess.PIPE,
    )


STOPS = """\
trap 'sleep 0.3; exit 75' TERM
touch begun
while true; do sleep 0.05; done"""


def test_a_job_whose_time_is_over_saves_and_is_queued_again(tmp_path: Path):
    job = submitted(tmp_path, STOPS, KEY="x")
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    job.communicate()

    assert job.returncode == 75
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 17\n"


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_ended_by_itself_is_not_queued_again(tmp_path: Path, code: int):
    job = submitted(tmp_path, f"exit {code}", KEY="x")
    job.communicate()

    assert job.returncode == code
    assert not (tmp_path / "scontrol.txt").exists()


def test_a_job_without_its_secret_says_so_and_does_not_begin(tmp_path: Path):
    job = submitted(tmp_path, "touch begun")
    _, said = job.communicate()

    assert job.returncode != 0
    assert b"KEY: export it, then submit again" in said
    assert not (tmp_path / "begun").exists()
