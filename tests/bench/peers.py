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
}


def ready(work: Path, name: str) -> Path | None:
    """Return the folder of a tool's commands, installed when it has to be; None when it cannot be."""
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
    stamp.write_text(wanted)
    return home / "bin"


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
