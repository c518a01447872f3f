from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Each number of rows has a process of its own: a peak does not go down again.
CHECK = """
import resource, sys
from pathlib import Path
from tests.stages import shard_cases
from tests.stages.running import Bench

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

name, folder, num_rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
shard_cases.set_up(256)
case = shard_cases.CASES[name]
params = dict(case.params)
if "filters" in params:  # one that keeps everything
    params["filters"] = params["filters"][:1] if name == "curate" else params["filters"][1:2]
inputs = shard_cases.with_many_rows(name, folder, num_rows)
Bench(folder, prompts=shard_cases.prompts()).run(case.stage, params, inputs)
print(round(peak_mb()))
"""


def peak_mb(folder: Path, name: str, num_rows: int) -> int:
    folder.mkdir()
    command = [sys.executable, "-c", CHECK, name, str(folder), str(num_rows)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("name", ["curate", "generate", "filter", "evaluate.answers"])
def test_memory_stays_flat_as_rows_grow(tmp_path: Path, name: str) -> None:
    few = peak_mb(tmp_path / "few", name, 500)

    # 7 500 more rows of 3 kB are 22 MB of JSON alone, and 60 MB as objects; ids may be held.
    assert peak_mb(tmp_path / "many", name, 8_000) - few < 12
