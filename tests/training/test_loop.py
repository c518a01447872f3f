from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine import plugin
from engine.artifacts import Outputs
from engine.plan.stage import Machine, Tools
from engine.recipe.model import LoraSpec, TrainSpec
from engine.records import ImagePart, Record, assistant, user
from engine.training.fit import fit
from engine.training.job import Job
from tests.models import tiny
from tests.training.rows import PICTURES, SETTINGS, chat, color_rows

LORA = LoraSpec(rank=4, alpha=8, dropout=0.1, targets=("q_proj", "v_proj"))
ALL = ("vision", "projector", "language")


class Stopped(BaseException):
    """Stands for a kill: nothing in the loop may catch it."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.idefics3(tmp_path_factory.mktemp("base"))


def job(base: Path, **settings) -> Job:
    spec = plugin.bind(TrainSpec, {**SETTINGS, **settings})
    return Job(
        name="base",
        model=str(base),
        revision=None,
        trust_remote_code=False,
        starts_random=False,
        parts=ALL,
        lora=None,
        training=spec,
    )


def train(
    folder: Path,
    wanted: Job,
    on_step: Callable[..., None] = lambda *_: None,
    seed: int = 1,
    rows: Sequence[Record] = (),
) -> Outputs:
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    tools = Tools(
        seed=seed,
        scratch=folder / "scratch",
        prompts={},
        machine=Machine(),
        locate=Path,
        locate_model=str,
        log=lambda _: None,
        progress=on_step,
    )
    outputs = Outputs(out)
    fit(rows or color_rows(), PICTURES.__getitem__, wanted, outputs, tools)
    outputs.counts()
    return outputs


def losses(outputs: Outputs) -> list[float]:
    import json

    lines = (outputs.path / "losses-00000.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def changed(base: Path, outputs: Outputs) -> set[str]:
    import torch

    before, after = weights(base), weights(outputs.path / "model")
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_it_learns_and_leaves_a_folder_that_answers(base: Path, tmp_path: Path):
    from engine.backends import ModelFiles, Request, Sampling
    from engine.backends.transformers import PLUGIN, Params

    outputs = train(tmp_path, job(base, num_train_epochs=40, learning_rate=3e-3))
    session = PLUGIN.open(ModelFiles(str(outputs.path / "model")), Params(), Machine())
    rows = color_rows(6)
    requests = [Request(row.turns[:1], (PICTURES[row.images[0]],)) for row in rows]
    answers = [done.text for done in session.generate(requests, Sampling(12))]

    assert losses(outputs)[-1] < 0.1 * losses(outputs)[0]
    assert answers == [row.turns[1].text for row in rows]


def test_a_model_taught_to_ask_writes_both_sides_and_ends(base: Path, tmp_path: Path):
    from engine.backends import ModelFiles, Request, Sampling
    from engine.backends.transformers import PLUGIN, Params

    (digest, *_) = PICTURES
    caption = (user(ImagePart(0), "Look."), assistant("a disc", loss=False))
    asked = (
        user("Hue?", loss=True),
        assistant("red", loss=True),
        user("Why?", loss=True),
        assistant("so", loss=True),
    )
    row = chat(*caption, *asked, images=(digest,))
    wanted = job(base, num_train_epochs=60, learning_rate=3e-3)
    outputs = train(tmp_path, wanted, rows=[row] * 4)
    session = PLUGIN.open(ModelFiles(str(outputs.path / "model")), Params(), Machine())
    request = Request(caption, (PICTURES[digest],), opens="user")
    (done,) = session.generate([request], Sampling(60))
    (cut,) = session.generate([request], Sampling(14))

    assert [(t.role, t.text) for t in done.turns] == [(t.role, t.text) for t in asked]
    assert done.finish == "stop"
    assert [t.text for t in cut.turns] == ["Hue?", "red"]
    assert cut.finish == "length"


def test_a_killed_run_goes_on_as_if_it_had_never_stopped(base: Path, tmp_path: Path):
    def stop(done: int, *_) -> None:
        if done == 4:
            raise Stopped

    wanted = job(base, save_steps=3)
    whole = train(tmp_path / "whole", wanted)
    with pytest.raises(Stopped):
        train(tmp_path / "cut", wanted, stop)
    seen = []
    resumed = train(tmp_path / "cut", wanted, lambda done, *_: seen.append(done))

    assert seen[0] == 4
    assert losses(resumed) == losses(whole)
    assert changed(whole.path / "model", resumed) == set()


def test_a_killed_adapter_run_goes_on_as_well(base: Path, tmp_path: Path):
    def stop(done: int, *_) -> None:
        if done == 4:
            raise Stopped

    wanted = replace(job(base, save_steps=3), lora=LORA)
    whole = train(tmp_path / "whole", wanted)
    with pytest.raises(Stopped):
        train(tmp_path / "cut", wanted, stop)

    assert losses(train(tmp_path / "cut", wanted)) == losses(whole)


def test_a_checkpoint_of_another_recipe_is_not_picked_up(base: Path, tmp_path: Path):
    def stop(done: int, *_) -> None:
        if done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path, job(base, save_steps=3), stop)
    seen = []
    train(tmp_path, job(base, learning_rate=2e-3), lambda done, *_: seen.append(done))

    assert seen[0] == 1


@pytest.mark.parametrize("nothing", [{"max_steps": 0}, {"learning_rate": 0.0}])
def test_training_that_does_nothing_leaves_the_model_as_it_was(
    base: Path, tmp_path: Path, nothing: dict
):
    assert changed(base, train(tmp_path, job(base, **nothing))) == set()


def test_the_micro_batch_size_does_not_change_the_result(base: Path, tmp_path: Path):
    whole = losses(train(tmp_path / "whole", job(base, per_device_train_batch_size=4)))
    split = losses(train(tmp_path / "split", job(base, per_device_train_batch_size=1)))

    assert split == pytest.approx(whole, rel=1e-3)


def test_only_the_named_parts_learn(base: Path, tmp_path: Path):
    outputs = train(tmp_path, replace(job(base), parts=("projector",)))

    assert changed(base, outputs) == {"model.connector.modality_projection.proj.weight"}


def test_adapters_are_merged_and_kept_beside_the_model(base: Path, tmp_path: Path):
    outputs = train(tmp_path, replace(job(base), lora=LORA, parts=("language",)))
    moved = changed(base, outputs)

    assert moved
    assert all(name.split(".")[-2] in LORA.targets for name in moved)
    assert all(name.startswith("model.text_model.") for name in moved)
    assert (outputs.path / "adapter" / "adapter_model.safetensors").exists()


def test_random_weights_depend_on_the_seed_alone(base: Path, tmp_path: Path):
    wanted = replace(job(base, max_steps=0), starts_random=True)
    first = train(tmp_path / "a", wanted)

    assert changed(first.path / "model", train(tmp_path / "b", wanted)) == set()
    assert changed(first.path / "model", train(tmp_path / "c", wanted, seed=2))


def test_a_loss_that_is_not_a_number_stops_the_run(base: Path, tmp_path: Path):
    from engine.diagnostics import StageError

    with pytest.raises(StageError, match="the loss is not a number at step"):
        train(tmp_path, job(base, learning_rate=1e30, max_grad_norm=0.0, num_train_epochs=5))
