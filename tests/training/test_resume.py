"""What a training leaves is the same to the bit, whatever happened to its processes."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models import tiny
from tests.training.lives import Case, Server, digests, server

NUM_STEPS = 9
LONG = {"num_train_epochs": 3, "warmup_ratio": 0.3, "lr_scheduler_type": "cosine"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that drops attention at random."""
    folder = tiny.idefics3(tmp_path_factory.mktemp("base"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["attention_dropout"] = 0.2
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def lives() -> Iterator[Server]:
    with server() as started:
        yield started


def case(base: Path, folder: Path, *, is_lora: bool = False, **settings) -> Case:
    return Case(str(base), str(folder), {**LONG, **settings}, is_lora, num_held_out=5)


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "scratch").glob("checkpoint-*"))


@pytest.mark.parametrize("is_lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(("save_steps", "logging_steps"), [(1, 1), (2, 4), (4, 3)])
def test_killed_at_any_moment_it_ends_with_the_same_bits(
    base: Path, tmp_path: Path, lives: Server, is_lora: bool, save_steps: int, logging_steps: int
):
    often = {"save_steps": save_steps, "logging_steps": logging_steps}
    whole = case(base, tmp_path / "whole", is_lora=is_lora, **{**often, "save_steps": 100})
    cut = case(base, tmp_path / "cut", is_lora=is_lora, **often)
    moments = random.Random(f"{is_lora} {save_steps}")
    lives.finish(whole)
    ends = [lives.killed(cut, moments, NUM_STEPS - 1) for _ in range(4)]
    lives.finish(cut)

    assert -signal.SIGKILL in ends
    assert digests(cut.folder) == digests(whole.folder)


def test_killed_inside_the_write_of_a_checkpoint_it_goes_on_from_the_one_before(
    base: Path, tmp_path: Path, lives: Server
):
    whole, cut = case(base, tmp_path / "whole"), case(base, tmp_path / "cut", save_steps=2)
    lives.finish(whole)
    life = lives.start(cut)
    life.reach(3)
    life.signal(signal.SIGKILL)
    life.end()
    size = checkpoints(tmp_path / "cut")[-1].stat().st_size
    broken = lives.start(replace(cut, file_limit=size // 2))

    assert broken.end() == -signal.SIGXFSZ
    assert list((tmp_path / "cut" / "scratch" / "writing").iterdir())
    assert broken.steps == [3]
    assert lives.finish(cut).steps[0] == 3
    assert digests(cut.folder) == digests(whole.folder)


@pytest.mark.parametrize("harm", ["flipped", "cut short", "empty"])
@pytest.mark.parametrize("num_damaged", [1, 2])
def test_a_damaged_checkpoint_is_never_used(
    base: Path, tmp_path: Path, lives: Server, harm: str, num_damaged: int
):
    whole, cut = case(base, tmp_path / "whole"), case(base, tmp_path / "cut", save_steps=2)
    lives.finish(whole)
    life = lives.start(cut)
    life.reach(7)
    life.signal(signal.SIGKILL)
    life.end()
    for path in checkpoints(tmp_path / "cut")[-num_damaged:]:
        damage(path, harm)

    assert lives.finish(cut).steps[0] == (5 if num_damaged == 1 else 1)
    assert digests(cut.folder) == digests(whole.folder)


def damage(path: Path, harm: str) -> None:
    data = bytearray(path.read_bytes())
    data[random.Random(harm).randrange(len(data))] ^= 1
    path.write_bytes({"flipped": data, "cut short": data[: len(data) // 2], "empty": b""}[harm])


@pytest.mark.parametrize("is_lora", [False, True], ids=["full", "lora"])
def test_asked_to_stop_it_keeps_the_last_finished_step(
    base: Path, tmp_path: Path, lives: Server, is_lora: bool
):
    whole, cut = (case(base, tmp_path / name, is_lora=is_lora) for name in ("whole", "cut"))
    lives.finish(whole)
    life = lives.start(cut)
    life.reach(4)
    asked_at = time.monotonic()
    life.signal(signal.SIGTERM)

    assert life.end() == 75
    assert time.monotonic() - asked_at < 10
    assert lives.finish(cut).steps[0] == life.steps[-1] + 1 >= 5
    assert digests(cut.folder) == digests(whole.folder)


def test_slow_steps_are_kept_by_time(base: Path, tmp_path: Path, lives: Server):
    whole = case(base, tmp_path / "whole", save_steps=100)
    cut = replace(whole, folder=str(tmp_path / "cut"), machine={"checkpoint_every_s": 0.0})
    lives.finish(whole)
    life = lives.start(cut)
    life.reach(6)
    life.signal(signal.SIGKILL)
    life.end()

    assert lives.finish(cut).steps[0] >= 7
    assert digests(cut.folder) == digests(whole.folder)


def test_smaller_batches_after_running_out_of_memory_change_no_loss(tmp_path: Path, lives: Server):
    steady = tiny.idefics3(tmp_path / "steady")
    whole = case(steady, tmp_path / "whole")
    lives.finish(whole)
    for shrink in (1, 5):
        less = replace(whole, folder=str(tmp_path / f"{shrink}"), machine={"shrink": shrink})
        lives.finish(less)
        assert losses(less) == pytest.approx(losses(whole), abs=1e-4)


def test_memory_that_runs_out_halves_the_batch_and_changes_no_loss(tmp_path: Path, lives: Server):
    often = {"num_train_epochs": 2, "save_steps": 1, "max_length": 512}
    at_once = {"global_batch_size": 64, "per_device_train_batch_size": 64}
    base = str(tiny.llama(tmp_path / "base"))
    tight = Case(base, str(tmp_path / "tight"), often | at_once, num_rows=0, num_texts=64)
    lives.finish(replace(tight, memory_mb=300))
    few = replace(tight, folder=str(tmp_path / "few"), machine={"shrink": 4})
    lives.finish(few)

    assert num_halvings(tight) >= 1
    assert losses(tight) == pytest.approx(losses(few), abs=1e-4)


def num_halvings(done: Case) -> int:
    from safetensors import safe_open

    with safe_open(checkpoints(Path(done.folder))[-1], framework="pt") as stored:
        return int(stored.metadata()["num_halvings"])


def losses(done: Case, name: str = "loss") -> list[float]:
    lines = (Path(done.folder) / "out" / "losses-00000.jsonl").read_text().splitlines()
    return [row[name] for row in map(json.loads, lines) if name in row]
