"""`--fix` repairs what is certain at its place, keeps the rest byte for byte, and never guesses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import package_data
from engine.cli import main
from engine.diagnostics import Fix, RequestError, Span
from engine.recipe.load import load_experiment
from engine.recipe.mending import applied, mended
from engine.recipe.repairs import _distance

HEAD = "recipe: 1\nname: x\nsource: {use: pocket, world: shapes, num_rows: 9}\n"
BASE = "base: {model: a}\n"
SHIPPED = sorted(package_data.folder("recipes").glob("*.yaml"))


def repaired(folder: Path, lines: str) -> str:
    """Return the lines below the head of a recipe after their repair."""
    path = folder / "r.yaml"
    text = HEAD + lines
    path.write_text(text, encoding="utf-8")
    after, fixes = mended(path, text)

    assert after.startswith(HEAD)
    assert (after == text) == (fixes == [])
    assert path.read_text(encoding="utf-8") == text
    return after.removeprefix(HEAD)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("base: {modle: a}", "base: {model: a}"),
        ("base: {model: a, bakend: {use: vllm}}", "base: {model: a, backend: {use: vllm}}"),
        ("base: {model_name_or_path: a}", "base: {model: a}"),
        ("base: {model: a, finetuning_type: full}", "base: {model: a, method: full}"),
        ('base: {"modle": a}', 'base: {"model": a}'),
        (BASE + "training:\n  lr: 1  # high", BASE + "training:\n  learning_rate: 1  # high"),
        (BASE + "training: {max-length: 512}", BASE + "training: {max_length: 512}"),
        (BASE + "training: {weight_dcay: 0}", BASE + "training: {weight_decay: 0}"),
        ("base: {model: a, trust_remote_code: yes}", "base: {model: a, trust_remote_code: true}"),
        ("base: {model: a, trust_remote_code: 'No'}", "base: {model: a, trust_remote_code: false}"),
        ('base: {model: a}\nseed: "42"', "base: {model: a}\nseed: 42"),
        (BASE + "seed: 1_000", BASE + "seed: 1000"),
        (BASE + "seed: 1,000  # x", BASE + "seed: 1000  # x"),
        (BASE + "training: {learning_rate: '1e-4'}", BASE + "training: {learning_rate: 1e-4}"),
        ("base: {model: 7}", 'base: {model: "7"}'),
        ("base: {model: 1.10}", 'base: {model: "1.10"}'),
        ("base: {model: a, train: vision}", "base: {model: a, train: [vision]}"),
        (BASE + "benchmarks:\n  domain: holdout", BASE + "benchmarks:\n  domain: [holdout]"),
        ("base: {model: a, backend: vllm}", "base: {model: a, backend: {use: vllm}}"),
        # a repaired key whose value is repaired next
        (BASE + "training: {cutoff_len: '512'}", BASE + "training: {max_length: 512}"),
        # letters that take several bytes stand before the place
        ("base: {model: \u00e9\U0001f600\u56fe, modle: b, trian: [vision]}",
         "base: {model: \u00e9\U0001f600\u56fe, modle: b, train: [vision]}"),
    ],
)  # fmt: skip
def test_what_is_certain_is_repaired(tmp_path: Path, wrong: str, right: str):
    assert repaired(tmp_path, wrong + "\n") == right + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "base: {model: a, modle: b}",  # the key is there already
        "base: {modle: a, modell: b}",  # two that mean the same
        "base: {model: a, lora_r: 8}",  # its home is another section
        "base: {model: a}\ntraining: {warmup_steps: 10}",  # not the same meaning
        "base: {model: a}\ntraining: {bf16: true}",
        "base: {model: a}\ntraining: {lrate: 1}",  # not near enough
        "base: {model: a}\nseed: '010'",  # octal to some
        "base: {model: a}\nseed: '1.5'",  # a whole number is wanted
        "base: {model: a}\ntraining: {learning_rate: '0,1'}",
        "base: {model: a}\nseed: many",
        'base: {model: a, train: "vision, language"}',  # one text or two?
        "base: {model: a, train: tower}",  # not a part
        "base: {model: a, backend: torch}",  # no such plug-in
        "base: {model: true}",
        "base: {model: a}\nseed: '1000000000000000000000'",
        "base: {model: a, method: lora, weights: random}",
    ],
)
def test_what_a_person_must_weigh_is_left_alone(tmp_path: Path, text: str):
    assert repaired(tmp_path, text + "\n") == text + "\n"


def test_a_repair_that_makes_its_line_worse_is_taken_back(tmp_path: Path):
    text = "base: {model: a}\ntraining: {lr: fast}\n"

    assert repaired(tmp_path, text) == text


def test_good_repairs_stay_when_another_is_taken_back(tmp_path: Path):
    after = repaired(tmp_path, "base: {modle: a}\ntraining: {lr: fast}\n")

    assert after == "base: {model: a}\ntraining: {lr: fast}\n"


def test_a_repair_that_is_taken_back_takes_none_of_its_line_with_it(tmp_path: Path):
    after = repaired(tmp_path, "base: {model: a}\ntraining: {weight_dcay: 0, lr: fast}\n")

    assert after == "base: {model: a}\ntraining: {weight_decay: 0, lr: fast}\n"


def test_a_repair_stays_when_it_brings_another_mistake_to_light(tmp_path: Path):
    after = repaired(tmp_path, "base: {modle: a}\nmix: {parts: {captions: 0}}\n")

    assert after == "base: {model: a}\nmix: {parts: {captions: 0}}\n"


def test_comments_and_layout_survive_byte_for_byte(tmp_path: Path):
    text = "# \u00e9\n\nbase:   {modle: a,   train: vision}   # c: d\n\n\n  # end"

    assert repaired(tmp_path, text) == (
        "# \u00e9\n\nbase:   {model: a,   train: [vision]}   # c: d\n\n\n  # end"
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_survive(tmp_path: Path, newline: str):
    path = tmp_path / "r.yaml"
    text = f"{HEAD}base: {{modle: a}}\n".replace("\n", newline)

    assert mended(path, text)[0] == text.replace("modle", "model")


def test_a_parent_is_never_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    parent = f"{HEAD}base: {{modle: a}}\n"
    Path("parent.yaml").write_text(parent)
    Path("child.yaml").write_text("extends: parent.yaml\nsead: 1\n")

    assert main(["validate", "--fix", "child.yaml"]) == 1
    assert Path("parent.yaml").read_text() == parent
    assert Path("child.yaml").read_text() == "extends: parent.yaml\nseed: 1\n"


def test_the_command_says_each_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(f"{HEAD}base: {{modle: pocket/base}}\n")

    assert main(["validate", "--fix", "r.yaml"]) == 0
    assert capsys.readouterr().err == "r.yaml:4:8: `modle` is now `model`\n"
    assert Path("r.yaml").read_text() == f"{HEAD}base: {{model: pocket/base}}\n"
    assert list(Path().iterdir()) == [Path("r.yaml")]


def test_the_json_form_carries_the_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(f"{HEAD}base: {{modle: a}}\nx: 1\n")

    assert main(["validate", "--json", "r.yaml"]) == 1
    fixes = [item["fix"] for item in json.loads(capsys.readouterr().out)["diagnostics"]]
    assert {"file": "r.yaml", "line": 4, "column": 8, "old": "modle", "new": "model"} in fixes
    assert None in fixes


def test_changes_of_one_line_do_not_move_each_other():
    fixes = [Fix(Span("f", 1, 1), "ab", "x"), Fix(Span("f", 1, 4), "c", "yyyy")]

    assert applied("ab c d\n", fixes) == "x yyyy d\n"


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "ab", 2), ("same", "same", 0), ("modle", "model", 1), ("kitten", "sitting", 3)],
)
def test_the_distance_counts_letters_and_swaps(one: str, other: str, distance: int):
    assert _distance(one, other) == distance


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(
    path=st.sampled_from(SHIPPED),
    place=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 3),
    new=st.text("aeklmnorst_-: ,'\"[]01\u00e9", max_size=3),
)
def test_a_repair_leaves_no_new_mistake_and_is_done_at_once(
    path: Path, place: float, length: int, new: str
):
    text = path.read_text("utf-8")
    start = int(place * len(text))
    text = text[:start] + new + text[start + length :]
    after, fixes = mended(path, text)
    again, none = mended(path, after)

    assert (again, none) == (after, [])
    assert num_mistakes(path, after) <= num_mistakes(path, text) or fixes == []
    assert (after == text) == (fixes == [])


def num_mistakes(path: Path, text: str) -> int:
    try:
        load_experiment(path, text=text)
    except RequestError as error:
        return len(error.diagnostics)
    return 0
