from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from engine import cli, package_data
from engine.runtime.store import Store
from tests.rendering.finished import finished


def report(store: Store, *words: str) -> int:
    return cli.main(["report", *words, "--store", str(store.root)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def schema() -> Any:
    return json.loads((package_data.folder("schemas") / "summary.schema.json").read_text("utf-8"))


@pytest.mark.parametrize("max_items", [None, 40])
def test_the_json_follows_its_schema(store: Store, tmp_path: Path, capsys, max_items):
    finished(store, tmp_path / "arm", max_items=max_items)

    assert report(store, "--json") == 0
    jsonschema_rs.validate(schema(), json.loads(capsys.readouterr().out))


def test_the_verdict_comes_first_and_scores_follow_per_answer_type(store, tmp_path, capsys):
    finished(store, tmp_path / "arm")
    report(store)
    text = capsys.readouterr().out

    assert text.startswith("cells: a gain of 21.0 points, from 30.0 to 51.0.\n")
    assert text.index("base 3, adapted 1") < text.index("pairs in") < text.index("  yes_no")
    assert "2 rows set aside" in text


def test_a_smoke_run_is_flagged_in_the_terminal(store, tmp_path, capsys):
    finished(store, tmp_path / "arm", max_items=40)
    report(store)
    text = capsys.readouterr().out

    assert text.startswith("smoke run, cells: ")
    assert "Smoke run, not a result" in text


def test_the_path_of_the_page_is_one_that_is_there(store, tmp_path, capsys):
    finished(store, tmp_path / "arm")
    report(store)

    assert Path(capsys.readouterr().out.splitlines()[-1].removeprefix("report  ")).is_file()


def test_a_run_that_stopped_early_says_why_it_has_no_report(store, tmp_path, capsys):
    run = finished(store, tmp_path / "arm", has_report=False)

    assert report(store, run.id) == 1
    assert "has no report: it ran `--only train`" in capsys.readouterr().err


def test_several_runs_are_ranked_against_each_other(store, tmp_path, capsys):
    first = finished(store, tmp_path / "first")
    second = finished(store, tmp_path / "second", caption="Four red cells on a dark ground.")

    assert report(store, first.id, second.id) == 0
    head, *rows, told = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["place", "arm", "adapted"]
    assert {row.split()[1] for row in rows} == {first.id, second.id}
    assert [row.split()[0] for row in rows] == ["1=", "1="]
    assert "cannot be told apart" in told


def test_the_json_of_several_runs_follows_its_schema(store, tmp_path, capsys):
    first = finished(store, tmp_path / "first")
    second = finished(store, tmp_path / "second", caption="Four red cells on a dark ground.")
    report(store, first.id, second.id, "--json")

    found = json.loads(capsys.readouterr().out)
    folder = package_data.folder("schemas")
    jsonschema_rs.validate(json.loads((folder / "ranking.schema.json").read_text("utf-8")), found)
    assert [run["run"] for run in found["runs"]] == [first.id, second.id]
