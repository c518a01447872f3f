from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.killing import NUM_KILLS, SHARD
from tests.stages.shard_cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_a_stage_that_is_killed_again_and_again_loses_nothing_it_had(
    tmp_path: Path, name: str
) -> None:
    command = [sys.executable, "-m", "tests.stages.killing", name, str(tmp_path), "1"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    assert found["killed_is_same"]
    assert found["damaged_is_same"]
    assert found["num_redone"] == 0
    # Kills fell in the middle of the work, and cost a shard per process at most.
    assert any(0 < num < found["num_shards"] for num in found["num_shards_after_kills"])
    assert found["num_asked_again"] <= 2 * NUM_KILLS * 3 * SHARD
