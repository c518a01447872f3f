"""The verb `schema`: whole schemas as JSON, any part of them in words."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from engine.cli import main
from engine.cli.schema import names


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["schema", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["recipe", "bundle", "benchmark", "benchmark-bundle", "plan"])
def test_a_whole_schema_is_json(name: str, capsys: pytest.CaptureFixture[str]):
    Draft202012Validator.check_schema(json.loads(said(capsys, name)))


def test_without_a_name_it_is_the_bundle(capsys: pytest.CaptureFixture[str]):
    assert said(capsys) == said(capsys, "bundle")


def test_a_key_is_explained_with_type_bounds_and_default(capsys: pytest.CaptureFixture[str]):
    assert said(capsys, "training.learning_rate") == (
        "training.learning_rate\n"
        "  Peak learning rate, reached after warm-up.\n"
        "  number, 0 to 1; default 1e-5\n"
    )


def test_a_section_is_explained_key_by_key(capsys: pytest.CaptureFixture[str]):
    assert said(capsys, "base.lora").startswith(
        "base.lora\n"
        "  Low-rank adapters (Hu et al. 2021); used when `method` is lora.\n"
        "\n"
        "  rank: whole number, at least 1; default 16\n"
        "      Rank of the update of each weight matrix.\n"
    )


def test_a_place_for_a_plug_in_lists_them(capsys: pytest.CaptureFixture[str]):
    printed = said(capsys, "generator.backend")

    assert "    vllm          Runs a model with vLLM: many requests at once" in printed


@pytest.mark.parametrize("name", ["near_duplicate", "filters/near_duplicate"])
def test_a_plug_in_has_its_own_entry(name: str, capsys: pytest.CaptureFixture[str]):
    printed = said(capsys, name)

    assert "  max_distance_bits: whole number, 0 to 32; default 0\n" in printed


def test_a_setting_of_a_plug_in_can_be_asked_for(capsys: pytest.CaptureFixture[str]):
    assert "Folder that image paths start at" in said(capsys, "csv_file.image_root")


def test_a_mapping_says_how_to_see_its_keys(capsys: pytest.CaptureFixture[str]):
    assert "`adapt schema consistency.judge` explains its keys." in said(capsys, "consistency")
    assert "trust_remote_code: true or false" in said(capsys, "consistency.judge")


@pytest.mark.parametrize("form", [["--json"], ["--format", "json"]])
def test_a_part_as_json_stands_alone(form: list[str], capsys: pytest.CaptureFixture[str]):
    part = json.loads(said(capsys, "generator", *form))
    validator = Draft202012Validator(part)

    assert validator.is_valid({"model": "pocket/synthesizer", "prompt": "synthesize@1"})
    assert not validator.is_valid({"model": ""})


def test_every_name_that_is_listed_is_known(capsys: pytest.CaptureFixture[str]):
    printed = said(capsys, "--list").split()

    for listed in names().values():
        for name in listed:
            assert name in printed
            assert said(capsys, name, "--format", "text").startswith(f"{name}\n")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("recip", "recipe"),
        ("training.learning_rat", "training.learning_rate"),
        ("near_duplicat", "near_duplicate"),
        ("filters/near_duplicat", "filters/near_duplicate"),
        ("benchmark.metrik", "benchmark.metric"),
    ],
)
def test_an_unknown_name_gets_the_nearest(
    name: str, close: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["schema", name]) == 1
    assert f"did you mean `{close}`?" in capsys.readouterr().err


def test_a_name_like_no_other_is_answered_with_the_list(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "zzzz"]) == 1
    assert "`adapt schema --list` prints the names" in capsys.readouterr().err
