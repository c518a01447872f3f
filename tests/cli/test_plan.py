from __future__ import annotations

import argparse
import json
from pathlib import Path

import jsonschema_rs
import pytest

from engine import package_data
from engine.cli import plan as verb
from engine.cli.planning import Planned
from engine.diagnostics import RequestError
from engine.plan.stage import Plan
from engine.runtime.digests import DigestCache
from engine.runtime.store import Store
from tests.cli.fake_adapt import run_fake
from tests.runtime.fake_stages import PlanBuilder


def chain(num_rows: int = 3, note: str = "") -> Plan:
    build = PlanBuilder()
    build.add("count", num_rows=num_rows, note=note)
    build.add("double", "count")
    return build.plan()


def show(plan: Plan, folder: Path, *flags: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    args = parser.parse_args(["plan", "fake.yaml", *flags])
    store = Store(folder / "store")
    digests = DigestCache(folder / "digests")
    return verb.show(args, Planned(plan, folder / "fake.yaml", (), digests), store)


def reasons(text: str) -> dict[str, str]:
    """Return why each node runs, from the table beneath the head line."""
    head, *rows = text.split("\n\n")[0].splitlines()[1:]
    return {row.split()[0]: row[head.index("why") :] for row in rows}


@pytest.fixture
def ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "fake.yaml").write_text("recipe: 1\n")
    run_fake(chain(), tmp_path / "fake.yaml", tmp_path / "store")
    capsys.readouterr()
    return tmp_path


def test_a_plan_that_never_ran_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert show(chain(), tmp_path) == 0
    assert capsys.readouterr().out == (
        "plan of fake: 2 nodes, 0 cached, 2 to run\n"
        "  count   will run  never run before\n"
        "  double  will run  never run before\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_finished_nodes_are_cached(ran: Path, capsys: pytest.CaptureFixture[str]):
    show(chain(), ran)

    assert capsys.readouterr().out == (
        "plan of fake: 2 nodes, 2 cached, 0 to run\n  count   cached\n  double  cached\n"
    )


def test_a_changed_parameter_is_named_and_what_follows_from_it(
    ran: Path, capsys: pytest.CaptureFixture[str]
):
    show(chain(num_rows=5), ran)

    assert reasons(capsys.readouterr().out) == {
        "count": "own change: num_rows: 3 -> 5",
        "double": "upstream: its input `count` will run",
    }


def test_why_shows_every_difference(ran: Path, capsys: pytest.CaptureFixture[str]):
    show(chain(num_rows=5, note="x"), ran, "--why", "count")

    assert capsys.readouterr().out.splitlines()[2:5] == [
        "  against the nearest stored result of stage `count`:",
        "    params.note: '' -> 'x'",
        "    params.num_rows: 3 -> 5",
    ]


def test_json_fits_its_schema(ran: Path, capsys: pytest.CaptureFixture[str]):
    show(chain(num_rows=5), ran, "--json")
    found = json.loads(capsys.readouterr().out)
    schema = json.loads((package_data.folder("schemas") / "plan.schema.json").read_text())

    jsonschema_rs.validate(schema, found)
    assert found["nodes"][0]["forecast"]["wall_h"]["basis"].startswith("measured: run fake-")
    assert found["fleet"] is None
    assert [(node["id"], node["state"]) for node in found["nodes"]] == [
        ("count", "will run"),
        ("double", "will run"),
    ]
    assert found["nodes"][0]["estimate"]["basis"] == "the same node before"


def test_an_unknown_node_is_told_with_the_nearest(ran: Path):
    with pytest.raises(RequestError) as caught:
        show(chain(), ran, "--why", "cuont")
    assert caught.value.diagnostics[0].hint == "`count` is close"


def test_a_node_that_names_the_keys_of_others_runs_because_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def reported(num_rows: int) -> Plan:
        build = PlanBuilder()
        build.add("count", num_rows=num_rows)
        build.add("double", "count", note=build.nodes[0].key)
        return build.plan()

    (tmp_path / "fake.yaml").write_text("recipe: 1\n")
    run_fake(reported(3), tmp_path / "fake.yaml", tmp_path / "store")
    capsys.readouterr()
    show(reported(4), tmp_path)

    found = reasons(capsys.readouterr().out)["double"]
    assert found == "upstream: its input `count` will run"


QUICKSTART = str(package_data.folder("recipes") / "quickstart.yaml")
BIOMED = str(package_data.folder("recipes") / "biomed.yaml")


def adapt_plan(folder: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    args = parser.parse_args(["plan", *words, "--store", str(folder / "store")])
    return verb.run(args)


def test_json_of_a_named_device_fits_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapt_plan(tmp_path, BIOMED, "--on", "rtx4090", "--gpus", "2", "--price", "0.5", "--json")
    found = json.loads(capsys.readouterr().out)
    schema = json.loads((package_data.folder("schemas") / "plan.schema.json").read_text())

    jsonschema_rs.validate(schema, found)
    assert found["fleet"]["title"] == "RTX 4090 24 GB"
    assert found["totals"]["cost"] > 0
    assert found["totals"]["wall_side_by_side_h"] < found["totals"]["wall_h"]


def test_a_node_too_large_for_the_device_is_a_warning_at_its_recipe_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert adapt_plan(tmp_path, BIOMED, "--on", "RTX4090", "--json") == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]

    assert {one["code"] for one in warnings} == {"too-large-for-device"}
    assert warnings[0]["message"].startswith("`train` needs 56.8 GB at its peak; RTX 4090")
    assert warnings[0]["file"].endswith("base/qwen2_vl_2b.yaml")
    assert warnings[0]["hint"] == "try a smaller `max_length`, `base.method: lora`"


def test_an_unknown_device_is_told_with_the_nearest(tmp_path: Path):
    with pytest.raises(RequestError) as caught:
        adapt_plan(tmp_path, QUICKSTART, "--on", "h10")

    (one,) = caught.value.diagnostics
    assert (one.code, one.hint) == ("unknown-device", "`h100` is close")


@pytest.mark.parametrize("flags", [("--price", "2"), ("--on", "h100", "--gpus", "0")])
def test_flags_that_say_nothing_are_refused(tmp_path: Path, flags: tuple[str, ...]):
    with pytest.raises(RequestError) as caught:
        adapt_plan(tmp_path, QUICKSTART, *flags)

    assert caught.value.diagnostics[0].code == "wrong-flag"


def test_why_prints_the_basis_of_every_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapt_plan(tmp_path, QUICKSTART, "--why", "collect")

    assert capsys.readouterr().out.splitlines()[2:] == [
        "  made of:",
        "    stage    collect, version 1, seed 42",
        "    asked by quickstart.yaml:7",
        "    pin      source  null",
        '    param    source.use: "pocket"',
        "    param    source.version: 2",
        '    param    source.world: "cells"',
        "    param    source.num_rows: 1500",
        '    param    source.split: "train"',
        "    param    source.seed: 0",
        "  what it will take:",
        "    rows 1,500: recipe: num_rows",
        "    images 1,500: recipe: num_rows",
    ]


@pytest.mark.parametrize(
    ("form", "start"),
    [("mermaid", "---\n"), ("dot", "digraph "), ("html", "<!doctype html>"), ("json", "{")],
)
def test_every_format_prints_every_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, start: str
):
    adapt_plan(tmp_path, QUICKSTART, "--format", form)
    text = capsys.readouterr().out

    assert text.startswith(start)
    assert text.count("evaluate.answers/adapted/pocket_cells") >= 1


def test_planning_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapt_plan(tmp_path, BIOMED, "--on", "h100", "--format", "html")

    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""
