"""What travels in the wheel: installed elsewhere, it writes and plans a recipe that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.rules.golden import ROOT


def test_an_installed_wheel_writes_and_plans_a_recipe(tmp_path: Path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path / "wheel"), str(ROOT)], tmp_path)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    site = tmp_path / "site"
    _run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], tmp_path)

    adapt = [sys.executable, "-m", "engine.cli"]
    _run([*adapt, "init", "my_domain", "--from", "quickstart"], tmp_path, site)
    planned = _run([*adapt, "plan", "my_domain.yaml"], tmp_path, site)
    where = _run([sys.executable, "-c", "import engine; print(engine.__file__)"], tmp_path, site)

    assert where.startswith(str(site))
    assert "evaluate.scores/pocket_cells" in planned
    assert (site / "engine" / "rendering" / "report.html.j2").is_file()


def _run(command: list[str], folder: Path, site: Path | None = None) -> str:
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
