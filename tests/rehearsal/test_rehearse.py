"""What a rehearsal finds, says and leaves alone, on recipes with data of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from engine import package_data, plugin
from engine.backends import Request
from engine.backends.stand_in import plain
from engine.cli.preflight import no_room
from engine.records import user
from engine.rehearsal import formats, rows
from engine.sources import Row, SourceContext
from engine.sources._columns import RowParams
from tests.models import tiny
from tests.rehearsal.rehearser import Rehearser

RECIPE = """\
recipe: 1
name: mine
source: {use: json_file, path: pairs.jsonl}
generator:
  model: Qwen/Qwen2-VL-2B-Instruct
  prompt: synthesize@1
base: {model: Qwen/Qwen2-VL-2B-Instruct}
benchmarks: {domain: [own], general: [pocket_shapes]}
"""
BENCHMARK = """\
description: Questions of our own.
source: {use: csv_file, path: asked.csv, task: questions}
prompt: bare@1
metric: closed
max_new_tokens: 16
licence: ours
paper: ""
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe beside its data: eight pairs and two questions."""
    lines = []
    for number, colour in enumerate(("red", "green", "blue", "black", "white", "pink")):
        (tmp_path / f"{colour}.png").write_bytes(tiny.picture(colour, (80, 60)))
        caption = f"A {colour} field of sort {number}."
        lines.append(json.dumps({"image": f"{colour}.png", "caption": caption}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    asked = "image,question,answer\nred.png,Is it red?,yes\nblue.png,Is it red?,no\n"
    (tmp_path / "asked.csv").write_text(asked)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "own.yaml").write_text(BENCHMARK)
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def change(recipe: Path, before: str, after: str) -> None:
    text = recipe.read_text()
    assert before in text
    recipe.write_text(text.replace(before, after))


def test_own_data_is_read_by_its_own_source_and_nothing_of_a_run_is_done(
    recipe: Path, rehearser: Rehearser
):
    store = recipe.parent / "store"
    before = rehearser("plan", recipe, "--store", store, "--json")

    done = rehearser("rehearse", recipe, "--store", store)

    assert done.code == 0, done.err
    assert "the first 16 rows of pairs.jsonl" in done.out
    assert "a small qwen2_vl of random weights" in done.out
    assert "items scored: own 2, pocket_shapes" in done.out
    assert "\nnot checked\n" in done.out
    assert done.out.endswith("nodes came to their end in " + done.out.rpartition(" in ")[2])
    after = rehearser("plan", recipe, "--store", store, "--json")
    nodes = {node["key"]: node["state"] for node in json.loads(after.out)["nodes"]}
    assert nodes.keys() == {node["key"] for node in json.loads(before.out)["nodes"]}
    assert set(nodes.values()) == {"will run"}
    # Neither a report nor a status: the runs of the store are runs.
    assert "there is no run" in rehearser("report", "--store", store).err
    assert "there is no run" in rehearser("status", recipe, "--store", store).err


def test_the_result_lists_stand_ins_and_what_is_not_checked(recipe: Path, rehearser: Rehearser):
    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s", "--json", "--only", "mix")

    assert done.code == 0, done.err
    schema = json.loads((package_data.folder("schemas") / "event.schema.json").read_text())
    for line in done.out.splitlines():
        jsonschema_rs.validate(schema, json.loads(line))
    told = done.result["rehearsal"]
    assert told["models"] == {"Qwen/Qwen2-VL-2B-Instruct": "a small qwen2_vl of random weights"}
    assert told["rows"]["source"] == "the first 16 rows of pairs.jsonl"
    assert told["warnings"] == []
    assert told["unchecked"][-1] == "how good anything is: every score is one of noise"


def test_a_wrong_column_is_found(recipe: Path, rehearser: Rehearser):
    change(recipe, "pairs.jsonl}", "pairs.jsonl, columns: {caption: text}}")

    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s", "--only", "collect")

    assert done.code == 3
    assert "6 rows: 6 no caption" in done.err
    assert "mine.yaml:3:1" in done.err


def test_a_prompt_with_a_variable_that_it_is_not_given_is_found(recipe: Path, rehearser: Rehearser):
    change(recipe, "synthesize@1", "consistency@2")

    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s")

    assert done.code == 1
    assert "the prompt `consistency@2` needs" in done.err
    assert "mine.yaml:6:11" in done.err


def test_rows_too_short_for_an_image_are_found(recipe: Path, rehearser: Rehearser):
    base = "base: {model: llava-hf/llama3-llava-next-8b-hf}\ntraining: {max_length: 1000}"
    change(recipe, "base: {model: Qwen/Qwen2-VL-2B-Instruct}", base)

    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s")

    assert done.code == 3
    assert "`train` failed: none of 6 rows can be trained on" in done.err
    assert "is `training.max_length` too small?" in done.err
    assert "mine.yaml:8:1" in done.err


def test_a_benchmark_without_items_is_found(recipe: Path, rehearser: Rehearser):
    (recipe.parent / "asked.csv").write_text("image,question,answer\ngone.png,Is it red?,yes\n")

    done = rehearser(
        "rehearse", recipe, "--store", recipe.parent / "s", "--only", "evaluate.scores/own"
    )

    assert done.code == 3
    assert "1 rows: 1 image file not found" in done.err
    assert "mine.yaml:8" in done.err


def test_an_adapter_that_does_not_load_is_found(recipe: Path, rehearser: Rehearser):
    adapter = recipe.parent / "tuned"
    change(recipe, "  prompt:", "  adapter: {model: ./tuned}\n  prompt:")
    adapter.mkdir()

    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s")
    assert done.code == 1
    assert "does not load on `Qwen/Qwen2-VL-2B-Instruct`: it has no adapter_config" in done.err
    assert "mine.yaml:6" in done.err

    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_prj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s")
    assert done.code == 1
    assert "q_prj" in done.err

    (adapter / "adapter_config.json").write_text(json.dumps(settings).replace("q_prj", "q_proj"))
    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s", "--only", "generate")
    assert done.code == 0, done.err


def test_an_adapter_of_a_larger_model_is_found(recipe: Path, rehearser: Rehearser):
    from safetensors.torch import save_file
    from torch import zeros

    adapter = recipe.parent / "tuned"
    adapter.mkdir()
    change(recipe, "  prompt:", "  adapter: {model: ./tuned}\n  prompt:")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: zeros(4, 3584)}, adapter / "adapter_model.safetensors")

    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s")

    assert done.code == 1
    assert "it was made for layers of 3,584" in done.err
    assert "has 1,536" in done.err


def test_data_that_is_not_here_is_told_with_its_line(recipe: Path, rehearser: Rehearser):
    (recipe.parent / "pairs.jsonl").unlink()

    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s", "--only", "mix")

    assert done.code == 0, done.err
    assert "what a run here would meet\n  " in done.out
    assert "mine.yaml:3: `pairs.jsonl` is not on this machine" in done.out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--with-data", "4", "--offline"), "reads `owner/name` of the hub"),
        (("--with-models",), "runs `Qwen/Qwen2-VL-2B-Instruct`, whose weights are not on this"),
        (("--executor", "slurm"), "runs on this machine, not on `slurm`"),
        (("--with-data", "0"), "takes 1 or more rows"),
    ],
)
def test_what_cannot_be_asked_for(
    flags: tuple[str, ...], told: str, recipe: Path, rehearser: Rehearser
):
    change(recipe, "{use: json_file, path: pairs.jsonl}", "{use: hub, dataset: owner/name}")

    done = rehearser("rehearse", recipe, "--store", recipe.parent / "s", *flags)

    assert done.code == 1
    assert told in done.err


def test_a_full_disk_is_told_before_a_run_finds_it():
    assert [item.message for item in no_room(40.0, 12.5, Path("s"))] == [
        "40.0 GB or more are to be written, 12.5 GB are free at s"
    ]
    assert list(no_room(4.0, 12.5, Path("s"))) == []


@pytest.mark.parametrize(
    ("use", "settings", "columns"),
    [
        ("hub", {"dataset": "a/b", "config": "C", "split": "val"}, {"image": "images"}),
        ("hub", {"dataset": "a/b"}, {"image": "image", "caption": "captions"}),
        ("parquet", {"path": "x"}, {"caption": "text"}),
        ("json_file", {"path": "x"}, {"conversations": "conversations"}),
        ("csv_file", {"path": "x"}, {"image": "file"}),
        ("webdataset", {"path": "x"}, {"image": "jpg", "caption": "txt"}),
        ("image_folder", {"path": "x"}, {}),
    ],
)
def test_made_up_rows_are_read_by_the_source_that_they_stand_in_for(
    use: str, settings: dict[str, str], columns: dict[str, str], tmp_path: Path
):
    named = settings if use == "image_folder" else {**settings, "columns": columns}
    asked = plugin.bound_use("sources", {"use": use, **named})
    made = formats.write(asked, rows.pairs(RowParams(columns=columns)), tmp_path)

    source = plugin.load("sources", made.name)
    context = SourceContext(locate=Path, is_offline=True, seed=0)
    read = list(source.rows(plugin.settings_of("sources", made), context, None))

    good = [row for row in read if isinstance(row, Row)]
    assert len(read) == rows.NUM_PAIRS
    assert len(good) >= rows.NUM_PAIRS - 2  # one has no caption, one may have two pictures
    assert max(len(row.turns[1].text.split()) for row in good) >= rows.LONG_WORDS


def test_the_first_rows_of_a_source_are_its_own(tmp_path: Path):
    asked = plugin.bound_use("sources", {"use": "hub", "dataset": "a/b", "split": "train[1:]"})
    made = formats.write(asked, rows.pairs(RowParams()), tmp_path)
    few = {"use": "first", "source": {"use": "hub", **made.settings}, "num_rows": 3}
    use = plugin.bound_use("sources", few)
    context = SourceContext(locate=Path, is_offline=True, seed=0)
    source = plugin.load("sources", "first")

    read = list(source.rows(plugin.settings_of("sources", use), context, None))

    whole = plugin.load("sources", "hub")
    assert read == list(whole.rows(plugin.settings_of("sources", made), context, range(3)))


@pytest.mark.parametrize(
    ("question", "forms"),
    [
        ("Is there a roof?", {"Yes", "No"}),
        ("How many roofs?", set("01234")),
        ("What is it?\nA. a roof\nB. a river", {"A", "B"}),
    ],
)
def test_a_plain_answer_has_the_form_of_its_question(question: str, forms: set[str]):
    asked = Request((user(question),))

    given = {plain(asked, f"noise {number}") for number in range(40)}

    assert {text for text in given if not text.startswith("noise")} == forms
