"""Several processes train one model as one process would; real ones, over the loopback."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models import tiny
from tests.training.lives import Case, Life, Server, digests, server
from tests.training.test_resume import LONG, losses

NUM_STEPS = 8
TWO = {"num_devices": 2}
SPLIT = {**TWO, "device_memory_gb": 1e-6}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.idefics3(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lives() -> Iterator[Server]:
    with server() as started:
        yield started


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory, lives: Server) -> Case:
    """Return a training by one process, done; some rows have images, some have none."""
    settings = {**LONG, "num_train_epochs": 1.5, "save_steps": 2}
    case = Case(
        str(base), str(tmp_path_factory.mktemp("alone")), settings, num_texts=5, num_held_out=5
    )
    lives.finish(case)
    return case


def children(pid: int) -> list[int]:
    """Return the processes that a training has started, but for the one that only tidies up."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    command = {int(c): Path(f"/proc/{c}/cmdline").read_bytes() for c in found}
    return [child for child, line in command.items() if b"resource_tracker" not in line]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def at_step(lives: Server, case: Case, step: int) -> Life:
    life = lives.start(case)
    life.reach(step)
    return life


@pytest.mark.parametrize("machine", [TWO, SPLIT], ids=["copies", "split"])
def test_losses_are_those_of_one_process(
    alone: Case, tmp_path: Path, lives: Server, machine: dict[str, float]
):
    together = replace(alone, folder=str(tmp_path), machine=machine)
    life = lives.finish(together)

    assert life.steps == list(range(1, NUM_STEPS + 1))
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)
    kept_back = losses(alone, "held_out_loss")
    assert len(kept_back) == 2
    assert losses(together, "held_out_loss") == pytest.approx(kept_back, abs=1e-4)
    assert digests(str(tmp_path)).keys() == digests(alone.folder).keys()


def test_a_kill_changes_no_bit_and_leaves_no_process(alone: Case, tmp_path: Path, lives: Server):
    whole = replace(alone, folder=str(tmp_path / "whole"), machine=TWO, is_lora=True)
    cut = replace(whole, folder=str(tmp_path / "cut"))
    lives.finish(whole)
    life = at_step(lives, cut, 5)
    started = children(life.pid)
    life.signal(signal.SIGKILL)
    life.end()
    deadline = time.monotonic() + 5
    while any(map(is_running, started)) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert len(started) == 2
    assert not any(map(is_running, started))
    assert lives.finish(cut).steps[0] in (5, 7)
    assert digests(cut.folder) == digests(whole.folder)


def test_a_checkpoint_goes_on_under_another_number_of_processes(
    alone: Case, tmp_path: Path, lives: Server
):
    moved = replace(alone, folder=str(tmp_path))
    for machine, step in ((SPLIT, 2), (TWO, 5)):
        life = at_step(lives, replace(moved, machine=machine), step)
        life.signal(signal.SIGTERM)
        assert life.end() == 75
    last = lives.finish(moved)

    assert last.steps[0] == life.steps[-1] + 1
    assert losses(moved) == pytest.approx(losses(alone), abs=1e-4)


def test_one_that_is_killed_ends_all(alone: Case, tmp_path: Path, lives: Server):
    life = at_step(lives, replace(alone, folder=str(tmp_path), machine=TWO), 3)
    first, second = children(life.pid)
    os.kill(second, signal.SIGKILL)

    assert life.end() == 1
    assert "MemoryError: training process 1 was killed" in (tmp_path / "error").read_text()
    assert not is_running(first)


def test_what_one_says_is_what_the_training_ends_with(alone: Case, tmp_path: Path, lives: Server):
    endless = {**LONG, "learning_rate": 1e30, "max_grad_norm": 0.0}
    case = replace(alone, folder=str(tmp_path), machine=TWO, settings=endless)
    life = lives.start(case)

    assert life.end() == 1
    assert "the loss is not a number at step" in (tmp_path / "error").read_text()
