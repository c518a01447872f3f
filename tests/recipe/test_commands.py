"""The verb `validate`, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from engine.cli import main
from engine.recipe import schema

WRONG = "recipe: 1\nname: wrong\nbase: {modle: x}\ntraining: {lora_r: 1}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, text: str) -> str:
    (folder / "r.yaml").write_text(text, encoding="utf-8")
    return "r.yaml"


def test_validate_prints_every_mistake_and_exits_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["validate", written(folder, WRONG)]) == 1

    printed = capsys.readouterr().err
    assert printed.count("error[") == 2
    assert "r.yaml:3:8" in printed
    assert [path.name for path in folder.iterdir()] == ["r.yaml"]


def test_validate_json_follows_its_schema(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", written(folder, WRONG), "--json"]) == 1

    found = json.loads(capsys.readouterr().out)
    Draft202012Validator(schema.load("diagnostics")).validate(found)
    places = {(d["code"], d["line"], d["column"]) for d in found["diagnostics"]}
    assert ("unknown-key", 3, 8) in places


def test_validate_json_of_an_override_names_the_override(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["validate", written(folder, WRONG), "--json", "--set", "training.max_length=a"]
    assert main(arguments) == 1

    found = json.loads(capsys.readouterr().out)
    Draft202012Validator(schema.load("diagnostics")).validate(found)
    assert "--set training.max_length" in [d["file"] for d in found["diagnostics"]]


def test_validate_speaks_to_github(folder: Path, capsys: pytest.CaptureFixture[str]):
    main(["validate", written(folder, WRONG), "--format", "github"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::error file=r.yaml,line=")
    assert len(lines) == 2


def test_validate_writes_sarif(folder: Path, capsys: pytest.CaptureFixture[str]):
    main(["validate", written(folder, WRONG), "--format", "sarif"])

    (run,) = json.loads(capsys.readouterr().out)["runs"]
    regions = [r["locations"][0]["physicalLocation"]["region"] for r in run["results"]]
    assert {"startLine": 3, "startColumn": 8} in regions


def test_sarif_carries_rules_notes_and_fixes(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "a b.yaml").write_text("recipe: 1\nname: x\nbase: {modle: \u00e9}\n", "utf-8")
    (folder / "child.yaml").write_text("extends: a b.yaml\n")
    main(["validate", "child.yaml", "--format", "sarif"])

    log = json.loads(capsys.readouterr().out)
    (run,) = log["runs"]
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    result = next(r for r in run["results"] if r["ruleId"] == "unknown-key")
    (fix,) = result["fixes"]
    (change,) = fix["artifactChanges"]
    assert log["version"] == "2.1.0"
    assert run["columnKind"] == "unicodeCodePoints"
    assert set(rules) == {r["ruleId"] for r in run["results"]}
    assert rules["unknown-key"]["help"]["markdown"].startswith("# unknown-key")
    assert rules["unknown-key"]["shortDescription"]["text"].endswith(".")
    assert [place["message"]["text"] for place in result["relatedLocations"]] == [
        "extends `a b.yaml`"
    ]
    assert change["artifactLocation"] == {"uri": "a%20b.yaml"}
    assert change["replacements"] == [
        {
            "deletedRegion": {"startLine": 3, "startColumn": 8, "endColumn": 13},
            "insertedContent": {"text": "model"},
        }
    ]


def test_validate_fix_tidies_and_then_checks(folder: Path, capsys: pytest.CaptureFixture[str]):
    path = written(folder, "recipe: 1   # one\nname: x\nbase:\n\tcolour: y")

    assert main(["validate", path, "--fix"]) == 1
    assert (folder / path).read_text() == "recipe: 1   # one\nname: x\nbase:\n  colour: y\n"
    assert "unknown-key" in capsys.readouterr().err


def test_validate_of_a_missing_file_is_a_wrong_request(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["validate", "none.yaml"]) == 1
    assert "cannot read `none.yaml`" in capsys.readouterr().err


def test_help_of_the_verbs_imports_neither_yaml_nor_the_validator():
    code = (
        "import sys, engine.cli\n"
        "for verb in ('init', 'validate', 'schema'):\n"
        "    engine.cli.main([verb, '--help'])\n"
        "sys.exit(bool({'yaml', 'jsonschema_rs', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert done.returncode == 0
