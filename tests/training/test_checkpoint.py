from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.training import checkpoint
from engine.training.checkpoint import Progress, State
from engine.training.team import ALONE
from tests.chaos.disk import Disk, can_mount

MB = 1 << 20
ROW = {"step": 1, "loss": 0.1 + 0.2}


def state(fill: float, identity: str = "this run") -> State:
    """Return a state of 300 kB whose tensors all hold one number."""
    import torch

    model = torch.nn.BatchNorm1d(100)
    model.register_parameter("wide", torch.nn.Parameter(torch.zeros(250, 100)))
    learning = list(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _, parameter in learning:
        parameter.grad = torch.full_like(parameter, fill)
    optimizer.step()
    with torch.no_grad():
        for tensor in [*model.parameters(), model.running_mean]:
            tensor.fill_(fill)
    return State(learning, list(model.named_buffers()), optimizer, ALONE, identity)


def content(of: State) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in of.tensors(is_end=False)}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if not can_mount():
        pytest.skip("needs the right to mount")
    with Disk(tmp_path / "small", 1 * MB) as small:
        yield small


def test_everything_comes_back(tmp_path: Path):
    kept, fresh = state(1.5), state(0.5)
    progress = Progress(7, (ROW,), {"loss_sum": 1 / 3}, num_halvings=2)
    checkpoint.save(tmp_path, kept, progress)

    assert checkpoint.load(tmp_path, fresh) == progress
    assert content(fresh) == content(kept)


def test_two_are_kept(tmp_path: Path):
    for step in range(1, 5):
        checkpoint.save(tmp_path, state(step), Progress(step, ()))

    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    assert checkpoint.load(tmp_path, state(0)).step == 4


def test_one_of_another_run_is_removed(tmp_path: Path):
    checkpoint.save(tmp_path, state(1, "another run"), Progress(9, ()))

    assert checkpoint.load(tmp_path, state(0)) == Progress(0, ())
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_a_full_disk_is_said_and_costs_no_checkpoint(disk: Disk):
    checkpoint.save(disk.path, state(1), Progress(1, ()))
    (disk.path / "ballast").write_bytes(bytes(500_000))
    with pytest.raises(OSError, match="No space left") as found:
        checkpoint.save(disk.path, state(2), Progress(2, ()))
    kept = state(0)

    assert found.value.errno == errno.ENOSPC
    assert checkpoint.load(disk.path, kept).step == 1
    assert content(kept) == content(state(1))
