"""`${a.b}` across a parent and its child, in lists and in arms, and where it leads nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.diagnostics import Diagnostic, RequestError
from engine.recipe.load import load_experiment
from engine.recipe.model import Experiment

PARENT = """\
recipe: 1
name: parent
seed: 7
source: {use: pocket, world: shapes, num_rows: "${seed}"}
base: {model: pocket/base}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parent.yaml").write_text(PARENT, encoding="utf-8")


def loaded(child: str) -> Experiment:
    Path("child.yaml").write_text(f"extends: parent.yaml\n{child}", encoding="utf-8")
    return load_experiment(Path("child.yaml"))


def refused(child: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(RequestError) as found:
        loaded(child)
    return found.value.diagnostics


def num_rows(experiment: Experiment, arm: str = "") -> object:
    recipe = experiment.arms[arm] if arm else experiment.recipe
    assert recipe.source is not None
    return recipe.source.settings["num_rows"]


def test_a_reference_of_a_parent_sees_what_the_child_says():
    assert num_rows(loaded("seed: 9\n")) == 9


def test_a_reference_of_a_child_sees_what_the_parent_says():
    assert loaded('name: "child-${seed}"\n').recipe.name == "child-7"


def test_an_arm_changes_what_a_reference_of_the_parent_sees():
    experiment = loaded("matrix:\n  low: {seed: 3}\n  high: {seed: 30}\n")

    assert [num_rows(experiment, arm) for arm in ("low", "high")] == [3, 30]


def test_an_arm_may_refer_to_what_it_leaves_alone():
    experiment = loaded('seed: 512\nmatrix:\n  a: {training.max_length: "${seed}"}\n  b: {}\n')

    assert experiment.arms["a"].training.max_length == 512
    assert experiment.arms["b"].training.max_length != 512


def test_a_reference_of_an_arm_that_gives_the_wrong_type_is_refused():
    (item,) = refused('matrix:\n  a: {training.max_length: "${seed}00"}\n  b: {}\n')

    assert (item.code, str(item.span)) == ("wrong-type", "child.yaml:3:28")


def test_a_reference_in_a_list_is_resolved():
    experiment = loaded('description: pocket_shapes\nbenchmarks: {domain: ["${description}"]}\n')

    assert experiment.recipe.benchmarks.domain == ("pocket_shapes",)


def test_a_reference_into_a_list_is_resolved():
    text = 'benchmarks: {domain: [pocket_shapes]}\ndescription: "${benchmarks.domain[0]}"\n'

    assert loaded(text).recipe.description == "pocket_shapes"


def test_a_circle_over_two_files_is_told_at_both_ends():
    found = refused('seed: "${source.num_rows}"\n')

    assert [(item.code, str(item.span)) for item in found] == [
        ("reference", "child.yaml:2:7"),
        ("reference", "parent.yaml:4:48"),
    ]
    assert [str(note) for note in found[1].notes] == ["child.yaml:1:10 extends `parent.yaml`"]


def test_a_circle_that_an_arm_makes_names_the_arm():
    found = refused('matrix:\n  calm: {name: calm}\n  wild: {seed: "${seed}"}\n')

    assert {item.code for item in found} == {"reference"}
    assert any("is the matrix arm `wild`" in note.text for item in found for note in item.notes)
    assert not any("calm" in note.text for item in found for note in item.notes)


def test_a_reference_to_nothing_is_one_mistake_and_not_two():
    (item,) = refused('benchmarks: {domain: ["${nothing}"]}\n')

    assert (item.code, str(item.span)) == ("reference", "child.yaml:2:23")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("${oc.env:HOME}", "resolver"),
        ("${seed:x}", "resolver"),
        ("${${seed}}", "reference"),
        ("${}", "reference"),
        ("${seed", "reference"),
        ("${ seed }", "reference"),
        ("${seed.deeper}", "reference"),
        ("${benchmarks.domain[5]}", "reference"),
    ],
)
def test_what_is_no_plain_reference_is_refused(text: str, code: str):
    found = refused(f'benchmarks: {{domain: [pocket_shapes]}}\ndescription: "{text}"\n')

    assert [item.code for item in found] == [code]


def test_a_dollar_alone_is_a_text():
    assert loaded('description: "5 $ and $x {y}"\n').recipe.description == "5 $ and $x {y}"
