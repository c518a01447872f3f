from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.artifacts import Artifact, Manifest, Outputs
from engine.diagnostics import StageError
from engine.images import ImageBank, ImageWriter
from engine.records import Kind, Meta, Record, assistant, make_record, user
from engine.stages import synthesizer, train
from tests.models import tiny
from tests.stages.running import Bench
from tests.training.rows import PICTURES, SETTINGS, color_rows

TEMPLATE = (
    "{% if turn == 'caption' %}Describe the image.{% elif turn == 'precise' %}"
    "Precise.\n{{ instruction }}{% else %}Informative.\n{{ instruction }}{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.idefics3(tmp_path_factory.mktemp("base"))


def artifact(folder: Path, **sets: Iterable[Record]) -> Artifact:
    folder.mkdir(parents=True)
    outputs = Outputs(folder)
    for name, rows in sets.items():
        written = outputs.rows(name)
        for row in rows:
            written.write(row)
    with ImageWriter(folder) as writer:
        for picture in PICTURES.values():
            writer.add(picture)
    return Artifact(folder, Manifest("key", "x", (), outputs.counts(), (), {}, "digest"))


def settings(base: Path, **changes) -> dict:
    params = {
        "model": str(base),
        "revision": None,
        "trust_remote_code": False,
        "weights": "pretrained",
        "method": "full",
        "train": ["vision", "projector", "language"],
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["all-linear"]},
        "training": SETTINGS,
        "row_set": "train",
    }
    return {**params, **changes}


def ports(rows: Artifact, **others: Artifact) -> dict:
    made = {"rows": {"rows": rows}, "images": {"pairs": rows}}
    return {**made, **{name: {name: one} for name, one in others.items()}}


def test_training_leaves_a_model_its_losses_and_its_counts(base: Path, tmp_path: Path):
    rows = artifact(tmp_path / "mix", train=color_rows())
    made = Bench(tmp_path).run(train.STAGE, settings(base), ports(rows))
    logged = list(made.rows("losses"))

    assert made.manifest.counts["rows"] == 12
    assert made.manifest.counts["steps"] == 6
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5, 6]
    assert set(logged[0]) == {"step", "epoch", "loss", "learning_rate", "tokens"}
    files = {path.name for path in made.file("model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files


def test_a_second_stage_starts_from_the_model_of_the_first(base: Path, tmp_path: Path):
    rows = artifact(tmp_path / "mix", train=color_rows())
    bench = Bench(tmp_path)
    first = bench.run(train.STAGE, settings(base), ports(rows))
    untouched = settings("./nowhere", training={**SETTINGS, "max_steps": 0}, weights="random")
    second = bench.run(train.STAGE, untouched, ports(rows, model=first))

    def weights(made: Artifact) -> str:
        return hashlib.sha256(made.file("model/model.safetensors").read_bytes()).hexdigest()

    assert weights(second) == weights(first)


def test_a_row_that_cannot_be_used_is_in_the_ledger(base: Path, tmp_path: Path):
    lost = replace(color_rows(1)[0], images=("0" * 64,))
    rows = artifact(tmp_path / "mix", train=[*color_rows(4), lost])
    made = Bench(tmp_path).run(train.STAGE, settings(base), ports(rows))

    assert [row["reason"] for row in made.rows("quarantine")] == ["image is missing"]


def test_nothing_to_train_on_is_an_error(base: Path, tmp_path: Path):
    rows = artifact(tmp_path / "mix", train=color_rows(2))
    tight = settings(base, training={**SETTINGS, "max_length": 8})

    with pytest.raises(StageError, match="none of 2 rows can be trained on"):
        Bench(tmp_path).run(train.STAGE, tight, ports(rows))


def test_what_reads_images_can_be_sent_to_another_process(tmp_path: Path):
    rows = artifact(tmp_path / "mix", train=color_rows(1))
    read = synthesizer.WithBlanks(ImageBank([rows.path]))
    sent = pickle.loads(pickle.dumps(read))
    digest = next(iter(PICTURES))

    assert sent(digest) == PICTURES[digest]
    assert sent(f"{synthesizer.BLANK}{digest}") == read(f"{synthesizer.BLANK}{digest}")


class PromptBench(Bench):
    """A bench whose nodes have the synthesizer's template."""

    def tools(self, scratch: str):
        return replace(super().tools(scratch), prompts={"synthesize@1": TEMPLATE})


def seed_rows(count: int) -> list:
    return [
        make_record(
            row.images,
            [
                user(*row.turns[0].parts[:1]),
                assistant(f"a disc {number}"),
                user("Which colour?"),
                assistant("It is " + row.turns[1].text, style="informative"),
                assistant(row.turns[1].text, style="precise"),
            ],
            Meta(Kind.SEED, f"seed {number}"),
        )
        for number, row in enumerate(color_rows(count))
    ]


def tuned(base: Path, tmp_path: Path, rows: list, held_out: list, **changes) -> Artifact:
    seeds = artifact(tmp_path / "seeds", rows=rows, held_out=held_out)
    params = settings(base, prompt="synthesize@1", blank_ratio=0.5, **changes)
    for name in ("weights", "method", "lora", "row_set"):
        params.pop(name)
    inputs = {"seed_tasks": {"seeds": seeds}, "images": {"seeds": seeds}}
    return PromptBench(tmp_path).run(synthesizer.STAGE, params, inputs)


def test_the_synthesizer_is_tuned_on_seed_tasks_with_some_blank_images(base: Path, tmp_path: Path):
    made = tuned(base, tmp_path, seed_rows(12), [])

    assert made.manifest.counts["rows"] == 12
    assert 2 <= made.manifest.counts["blank images"] <= 10
    assert list(made.rows("quarantine")) == []
    assert made.file("model/config.json").exists()
    assert not any("held_out_loss" in row for row in made.rows("losses"))


def test_the_loss_of_held_out_seeds_is_told_once_an_epoch(base: Path, tmp_path: Path):
    rows = seed_rows(12)
    training = {**SETTINGS, "num_train_epochs": 3, "logging_steps": 2}
    made = tuned(base, tmp_path / "a", rows[:10], rows[10:], training=training)
    same = tuned(base, tmp_path / "b", rows[:10], [], training=training)
    told = {row["step"]: row.get("held_out_loss") for row in made.rows("losses")}

    assert [step for step, loss in told.items() if loss is not None] == [3, 6, 9]
    assert list(told) == [2, 3, 4, 6, 8, 9]
    assert told[9] < told[3]
    assert made.manifest.counts["rows held out"] == 2
    weights = [one.file("model/model.safetensors").read_bytes() for one in (made, same)]
    assert weights[0] == weights[1]  # nothing was learnt from them
