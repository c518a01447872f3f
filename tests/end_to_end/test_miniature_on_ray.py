"""The miniature on Ray nodes that die in the middle of each stage: digests as on one machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.store import Store
from tests.end_to_end.test_miniature import STAGES, adapt, command, small
from tests.runtime.ray_nodes import WARNINGS, Nodes, workers

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    *map(pytest.mark.filterwarnings, WARNINGS),
]
MIDDLE_S = 1.0  # after the start of a process
QUICK = {"collect", "seeds", "curate", "mix", "report"}  # take less than that
QUICK_S = 0.3
SHORT = {"mix", "report"}  # may be over even then


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    for _ in range(2 + len(QUICK)):  # in place of a node lost in a quick stage there comes no other
        found.add()
    yield found
    found.close()


def test_a_node_lost_in_the_middle_of_each_stage_changes_no_digest(tmp_path: Path, nodes: Nodes):
    assert adapt(tmp_path, "init", "mine", "--from", "quickstart").returncode == 0
    on_ray = ("--executor", "ray", "--ray-address", nodes.address, "--retries", "9")
    run = subprocess.Popen(
        command("run", "mine.yaml", *small(), "--store", "on_ray", *on_ray), cwd=tmp_path
    )
    lost = lose_a_node_in_each_stage(run, nodes, tmp_path)

    assert run.returncode == 0
    assert lost >= STAGES - SHORT | {"evaluate"}
    here = adapt(tmp_path, "run", "mine.yaml", *small(), "--store", "here")
    assert here.returncode == 0, here.stderr
    assert contents(tmp_path / "on_ray") == contents(tmp_path / "here")


def lose_a_node_in_each_stage(run: subprocess.Popen[bytes], nodes: Nodes, root: Path) -> set[str]:
    """Kill the node below each stage once; return the stages."""
    lost: set[str] = set()
    began: dict[int, float] = {}
    while run.poll() is None:
        time.sleep(0.05)
        for worker, node_id in workers(root).items():
            stage = node_id.split("/")[0].split(".")[0]
            middle_s = QUICK_S if stage in QUICK else MIDDLE_S
            if time.monotonic() - began.setdefault(worker, time.monotonic()) < middle_s:
                continue
            host = nodes.host_of(worker)
            if stage not in lost and host is not None:
                lost.add(stage)
                nodes.kill(host)
                if stage not in QUICK:
                    nodes.add()
                break
    return lost


def contents(root: Path) -> dict[str, str]:
    return {manifest.key: manifest.content_digest for manifest in Store(root).manifests()}
