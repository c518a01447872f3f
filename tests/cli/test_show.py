from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine import cli, package_data
from engine.cli.origins import yaml_lines
from engine.runtime.runs import Run
from engine.runtime.store import Store
from tests.rendering.finished import finished


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished(Store(tmp_path / "store"), tmp_path / "arm")


def show(run: Run, *words: str) -> int:
    return cli.main(["show", run.id, *words, "--store", str(run.path.parent.parent)])


def quickstart(folder: Path) -> Path:
    return Path(shutil.copy(package_data.folder("recipes") / "quickstart.yaml", folder))


def test_a_recipe_shows_the_origin_of_each_value_in_sections_and_lists(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    path = quickstart(tmp_path)
    line = next(
        i for i, t in enumerate(path.read_text("utf-8").splitlines(), 1) if "min_words" in t
    )
    cli.main(["show", "quickstart.yaml", "--set", "seed=7"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    assert f'- use: "caption_length" # quickstart.yaml:{line}' in lines
    assert f"min_words: 3 # quickstart.yaml:{line}" in lines
    assert "max_words: null # default" in lines
    assert any(line.startswith("seed: 7 # --set") for line in lines)


def test_an_absolute_recipe_path_is_shown_from_the_working_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["show", str(quickstart(tmp_path).resolve())])

    assert str(tmp_path) not in capsys.readouterr().out


def test_what_is_shown_is_the_recipe_as_yaml(tmp_path, capsys):
    import yaml

    path = quickstart(tmp_path)
    small = ["--set", "training.learning_rate=0.00001"]  # YAML 1.1 reads `1e-05` as a text
    cli.main(["show", str(path), *small])
    shown = yaml.safe_load(capsys.readouterr().out)
    cli.main(["show", str(path), *small, "--json"])

    assert shown["training"]["learning_rate"] == 0.00001
    assert shown == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("value", [{"no": 1, "a: b": "x # y"}, {"": [], "1": {}}, {"é": [[1], {}]}])
def test_names_and_values_that_yaml_would_misread_are_quoted(value):
    import yaml

    lines = [text for text, _ in yaml_lines(value, (), {})]

    assert yaml.safe_load("\n".join(lines)) == value


def test_a_node_shows_its_rows_as_dialogues_with_the_reason_to_drop(run, capsys):
    assert show(run, "filter") == 0
    text = capsys.readouterr().out

    assert "dropped: 3 rows, 3 shown" in text
    assert "assistant (precise): 3" in text
    assert "reason: answers disagree" in text


def test_rows_as_json_are_one_document(run, capsys):
    show(run, "filter", "--json", "--limit", "1")
    sets = json.loads(capsys.readouterr().out)

    assert [(s["rows"], s["num_rows"], len(s["shown"])) for s in sets] == [
        ("dropped", 3, 1),
        ("kept", 1, 1),
    ]


def test_text_from_data_cannot_steer_the_terminal(tmp_path, capsys):
    store = Store(tmp_path / "store")
    run = finished(store, tmp_path / "arm", caption="\x1b[2Jgone\r\x9b31m \u202eright\nleft")
    show(run, "filter")
    show(run, "curate")
    text = capsys.readouterr().out

    assert not {"\x1b", "\r", "\x9b", "\u202e"} & set(text)
    assert "\\x1b[2Jgone\\r\\x9b31m \\u202eright\n    left" in text


@pytest.mark.parametrize("limit", ["-1", "many"])
def test_a_limit_that_is_no_count_is_a_usage_error(run, capsys, limit):
    assert show(run, "filter", "--limit", limit) == 2
    assert "a number of rows, 0 or more" in capsys.readouterr().err


def test_images_of_the_rows_are_written(run, tmp_path, capsys):
    show(run, "filter", "--images", str(tmp_path / "seen"))

    assert len(list((tmp_path / "seen").glob("*.png"))) == 4


def test_the_ledger_counts_by_reason_before_it_lists(run, capsys):
    show(run, "ledger")
    lines = capsys.readouterr().out.splitlines()

    assert lines[:3] == [
        "2 rows set aside",
        "  1  near_duplicate: equal picture",
        "  1  no question under a header",
    ]
    assert "  curate: row/9: near_duplicate: equal picture (distance 0)" in lines


def test_the_ledger_as_json_holds_reasons_and_rows(run, capsys):
    show(run, "ledger", "--json")
    ledger = json.loads(capsys.readouterr().out)

    assert ledger["reasons"] == {
        "near_duplicate: equal picture": 1,
        "no question under a header": 1,
    }
    assert ledger["rows"][0]["node"] == "curate"


def test_an_unknown_node_names_the_nearest(run, capsys):
    assert show(run, "filtr") == 1
    assert "`filter` is close" in capsys.readouterr().err


def test_a_node_without_rows_says_where_its_files_are(run, capsys):
    show(run, "report")

    assert "`report` has no rows; its files are in" in capsys.readouterr().out


def test_a_run_without_a_report_shows_its_nodes(tmp_path, capsys):
    run = finished(Store(tmp_path / "store"), tmp_path / "arm", has_report=False)

    assert show(run) == 0
    assert "filter" in capsys.readouterr().out
