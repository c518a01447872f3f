"""Other tools, each in a throw-away virtual environment of its own; never a dependency of ours.

`ready(work, NAME)` makes the environment below `work` with `python -m venv` and pip when it is not
there yet, and keeps it for the next time. Nothing but the package index is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCH = "torch==2.13.0"  # the release whose build for processors alone can be had

# Each tool: calls of `pip install`, in order.
INSTALLS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "dvc": (("dvc==3.67.1",),),
    "snakemake": (("snakemake==9.27.1",),),
    "dbt": (("dbt-core==1.10.23", "dbt-duckdb==1.10.1"),),  # 1.12 fetches a binary to install
    "hydra": (("hydra-core==1.3.8",),),
    "check-jsonschema": (("check-jsonschema==0.39.0",),),
    # Both trainers without what only a GPU can use, nor their web pages where nothing imports them.
    "llamafactory": (
        (TORCH,),
        (
            TORCH, "transformers==5.6.0", "trl==0.24.0", "peft==0.18.1", "accelerate<=1.11.0",
            "datasets<=4.0.0", "av<=16.0.0", "gradio>=4.38.0,<=5.50.0", "tyro<0.9.0", "einops",
            "fastapi", "fire", "hf-transfer", "matplotlib", "modelscope", "numpy", "omegaconf",
            "packaging", "pandas", "protobuf", "pydantic", "pyyaml", "safetensors", "scipy",
            "sentencepiece", "sse-starlette", "tiktoken", "uvicorn", "requests",
        ),
        ("--no-deps", "torchdata==0.11.0", "torchvision==0.28.0", "torchaudio==2.11.0"),
        ("--no-deps", "llamafactory==0.9.5"),
    ),
    "axolotl": (
        (TORCH,),
        (
            "--no-deps", "axolotl==0.19.0", "axolotl-contribs-lgpl==0.0.7",
            "axolotl-contribs-mit==0.0.6", "optimum==1.16.2", "openenv-core==0.1.0",
            "bitsandbytes==0.50.2", "liger-kernel==0.8.1", "lm_eval==0.4.11", "torchao==0.17.0",
            "trackio==0.19.0", "evaluate==0.4.1",
        ),
        (
            TORCH, "packaging==26.0", "huggingface_hub==1.17.0", "peft==0.20.0", "trl==1.9.0",
            "tokenizers==0.23.1", "transformers==5.16.1", "accelerate==1.13.0", "datasets==4.8.4",
            "hf_xet==1.4.3", "kernels>=0.16.0,<0.17.0", "typing-extensions==4.15.0", "hf_transfer",
            "sentencepiece", "pydantic==2.12.5", "addict", "fire", "PyYAML==6.0.3", "requests",
            "einops", "colorama", "numba>=0.63.1,<1.0", "numpy>=2.1,<3.0", "scipy", "art",
            "nvidia-ml-py==12.560.30", "tensorboard", "python-dotenv==1.0.1", "s3fs==2025.10.0",
            "gcsfs==2025.10.0", "adlfs==2026.2.0", "ocifs==1.3.2", "zstandard==0.22.0", "fastcore",
            "langdetect==1.0.9", "immutabledict==4.2.0", "antlr4-python3-runtime==4.13.2",
            "schedulefree==1.4.1", "posthog==6.7.11", "mistral-common==1.11.5", "typer==0.25.1",
            "click", "responses", "wandb", "triton>=3.4.0",
        ),
    ),
}  # fmt: skip


def ready(work: Path, name: str) -> Path | None:
    """Return the folder of a tool's commands, installed when needed; None when it cannot be."""
    home = work / "venvs" / name
    stamp = home / ".installed"
    wanted = repr(INSTALLS[name])
    if stamp.exists() and stamp.read_text() == wanted:
        return home / "bin"
    print(f"installing {name} in {home}", file=sys.stderr)
    if not (home / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    for packages in INSTALLS[name]:
        done = subprocess.run([*pip, *packages], capture_output=True, text=True)
        if done.returncode:
            print(f"{name} cannot be installed: {done.stderr[-400:]}", file=sys.stderr)
            return None
    _for_processors_alone(home)
    stamp.write_text(wanted)
    return home / "bin"


def _for_processors_alone(home: Path) -> None:
    """Let torchvision and torchaudio, which come built for CUDA, be imported beside our torch."""
    for site in home.glob("lib/python*/site-packages"):
        for library in site.glob("torchaudio/lib/*.so"):
            library.unlink()
        if (site / "torchvision").exists():
            name = "torchvision_on_cpu"
            shutil.copy(ROOT / "tests" / "vllm_env" / f"{name}.py", site)
            (site / f"{name}.pth").write_text(f"import {name}\n")


def version(binaries: Path, package: str) -> str:
    """Return the version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(binaries / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "?"


def environment(work: Path, binaries: Path | None = None) -> dict[str, str]:
    """Return the variables of a measured command: its own home, no trackers, one quiet terminal."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    paths = [str(binaries)] if binaries else []
    return {
        "PATH": os.pathsep.join([*paths, os.environ.get("PATH", "/usr/bin:/bin")]),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "LANG": "C.UTF-8",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def fresh(folder: Path) -> Path:
    """Return an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def ours(*arguments: str) -> list[str]:
    """Return a command of ours, of this checkout (with `PYTHONPATH` at ROOT)."""
    return [sys.executable, "-m", "engine.cli", *arguments]
