from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf  # noqa: TID253  # the oracle

from engine.diagnostics import Diagnostic, RequestError, Span
from engine.recipe import compose
from engine.recipe.source import Node, places, read


def tree(text: str, file: str = "r.yaml") -> Node:
    return read(text, file)


def overridden(text: str, *overrides: str) -> tuple[object, list[Diagnostic]]:
    mistakes: list[Diagnostic] = []
    return compose.overridden(tree(text), overrides, mistakes).plain(), mistakes


def resolved(text: str) -> tuple[Node, list[Diagnostic]]:
    mistakes: list[Diagnostic] = []
    return compose.with_references(tree(text), mistakes), mistakes


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("{a: {b: 1, c: 2}, l: [1, 2]}", "{a: {c: 3, d: 4}, l: [9]}"),
        ("{a: {b: {c: 1}}}", "{a: {b: {d: 2}}, e: text}"),
        ("{a: 1}", "{a: {b: 1}}"),
        ("{a: {b: 1}}", "{a: 1}"),
        ("{a: {b: 1}}", "{a: null}"),
        ("{a: {}}", "{b: []}"),
    ],
)
def test_merging_gives_what_omegaconf_gives(parent: str, child: str):
    ours = compose.merged(tree(parent), tree(child)).plain()
    theirs = OmegaConf.merge(
        OmegaConf.create(tree(parent).plain()), OmegaConf.create(tree(child).plain())
    )

    assert ours == OmegaConf.to_container(theirs)


def test_each_value_keeps_the_place_it_came_from():
    parent = tree("base:\n  model: a\n  method: full\n", "parent.yaml")
    child = tree("base:\n  model: b\n", "child.yaml")
    found = places(compose.merged(parent, child))

    assert found[("base", "model")].value == Span("child.yaml", 2, 10)
    assert found[("base", "method")].value == Span("parent.yaml", 3, 11)


def test_a_section_with_another_use_is_replaced_whole():
    parent = tree("source: {use: hub, dataset: x}")
    child = tree("source: {use: image_folder, path: y}")

    assert compose.merged(parent, child).plain()["source"] == {"use": "image_folder", "path": "y"}


def test_a_section_with_the_same_or_no_use_is_merged():
    parent = tree("source: {use: hub, dataset: x}")

    assert compose.merged(parent, tree("source: {use: hub, split: y}")).plain()["source"] == {
        "use": "hub",
        "dataset": "x",
        "split": "y",
    }
    assert compose.merged(parent, tree("source: {split: y}")).plain()["source"]["use"] == "hub"


def test_parents_are_found_beside_the_file_that_names_them(tmp_path: Path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.yaml").write_text("extends: b.yaml\nx: 1\ny: 1\n")
    (tmp_path / "base" / "b.yaml").write_text("x: 2\nz: 2\n")
    (tmp_path / "r.yaml").write_text("extends: base/a.yaml\ny: 0\n")
    found = compose.read_with_parents(tmp_path / "r.yaml", "r.yaml").tree

    assert found.plain() == {"x": 1, "y": 0, "z": 2}


def test_parents_are_also_found_among_the_packaged_recipes(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("extends: base/qwen2_vl_2b.yaml\n")
    found = compose.read_with_parents(tmp_path / "r.yaml", "r.yaml").tree

    assert found.plain()["base"]["model"] == "Qwen/Qwen2-VL-2B-Instruct"


def test_a_circle_of_parents_is_refused(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("x: 1\nextends: a.yaml\n")
    with pytest.raises(RequestError) as caught:
        compose.read_with_parents(tmp_path / "a.yaml", "a.yaml")

    (found,) = caught.value.diagnostics
    assert (found.code, found.span.line if found.span else 0) == ("cycle", 2)


def test_overrides_set_values_sections_and_items():
    value, mistakes = overridden(
        "a: {b: 1}\nl: [{x: 1}, {x: 2}]\n", "a.b=1e-3", "a.c=[1, no]", "l[1].x=3", "new.deep={}"
    )

    assert mistakes == []
    assert value == {
        "a": {"b": 1e-3, "c": [1, "no"]},
        "l": [{"x": 1}, {"x": 3}],
        "new": {"deep": {}},
    }


def test_an_override_with_nothing_after_the_sign_sets_null():
    assert overridden("a: 1", "a=")[0] == {"a": None}


@pytest.mark.parametrize(
    ("override", "code", "place"),
    [
        ("a", "override", "--set a"),
        ("=1", "override", "--set "),
        ("a..b=1", "override", "--set a..b"),
        ("s.x=1", "no-section", "--set s.x"),
        ("l.x=1", "no-section", "--set l.x"),
        ("l[7]=1", "no-item", "--set l[7]"),
        ("s[0]=1", "no-list", "--set s[0]"),
        ("s=[1", "syntax", "--set s"),
        ("s=!!str 1", "tag", "--set s"),
    ],
)
def test_a_wrong_override_names_itself(override: str, code: str, place: str):
    value, (mistake,) = overridden("s: 1\nl: [1]", override)

    assert value == {"s": 1, "l": [1]}
    assert (mistake.code, str(mistake.span)) == (code, place)


def test_every_wrong_override_is_reported():
    _, mistakes = overridden("s: 1", "s.x=1", "s[0]=1")

    assert [d.code for d in mistakes] == ["no-section", "no-list"]


def test_an_arm_keeps_the_places_of_sections_it_only_passes_through():
    recipe = tree("mix:\n  parts: {captions: 1}\n")
    changes = tree("mix.parts.captions: 0\n", "arm")
    found = places(compose.with_changes(recipe, changes, []))

    assert found[("mix",)].key == Span("r.yaml", 1, 1)
    assert found[("mix", "parts", "captions")].value == Span("arm", 1, 21)


def test_references_keep_the_type_of_what_they_name():
    found, mistakes = resolved("a: {n: 3, l: [1, 2]}\nb: ${a.n}\nc: ${a.l}\nd: x-${a.n}\ne: ${b}\n")

    assert mistakes == []
    assert found.plain() == {"a": {"n": 3, "l": [1, 2]}, "b": 3, "c": [1, 2], "d": "x-3", "e": 3}


def test_a_value_from_a_reference_has_the_place_of_the_reference():
    found, _ = resolved("a: {n: 3}\nb: ${a}\n")

    assert places(found)[("b", "n")].value == Span("r.yaml", 2, 4)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: ${b.c}", "reference"),
        ("a: ${a}", "reference"),
        ("a: ${b}\nb: ${a}", "reference"),
        ("a: ${", "reference"),
        ("a: ${ b }\nb: 1", "reference"),
        ("a: ${b}\nb:\n  c: ${a}", "reference"),
        ("a: ${oc.env:HOME}", "resolver"),
        ("a: ${oc.decode:x}", "resolver"),
        ("a: 'x ${oc.env:HOME}'", "resolver"),
        ("a: ${ oc.env:HOME }", "resolver"),
        ("a: '${${x}:HOME}'\nx: oc.env", "resolver"),
    ],
)
def test_references_to_nothing_and_resolvers_are_refused(text: str, code: str):
    _, mistakes = resolved(text)

    assert mistakes[0].code == code


def test_a_refused_resolver_is_not_called_through_another_reference():
    found, mistakes = resolved("a: ${oc.env:HOME}\nb: ${a}\nc: {n: 1}\nd: ${c.n}\n")

    assert [d.code for d in mistakes] == ["resolver"]
    assert found.plain() == {"a": "${oc.env:HOME}", "b": None, "c": {"n": 1}, "d": 1}


def test_without_a_reference_omegaconf_is_not_imported():
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from engine.recipe import compose\n"
        "compose.read_with_parents(Path('recipes/pocket_ablation.yaml'), 'x')\n"
        "sys.exit('omegaconf' in sys.modules)"
    )
    root = Path(__file__).parent.parent.parent

    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
