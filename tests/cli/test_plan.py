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
    digests = DigestCache(folder / "digests.json")
    return verb.show(args, Planned(plan, folder / "fake.yaml", (), digests), store)


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

    assert capsys.readouterr().out.splitlines()[1:] == [
        "  count   will run  params.num_rows: 3 -> 5",
        "  double  will run  its input `count` will run",
    ]


def test_why_shows_every_difference(ran: Path, capsys: pytest.CaptureFixture[str]):
    show(chain(num_rows=5, note="x"), ran, "--why", "count")

    assert capsys.readouterr().out.splitlines()[2:] == [
        "  against the nearest stored result of stage `count`:",
        "    params.note: '' -> 'x'",
        "    params.num_rows: 3 -> 5",
    ]


def test_json_fits_its_schema(ran: Path, capsys: pytest.CaptureFixture[str]):
    show(chain(num_rows=5), ran, "--json")
    found = json.loads(capsys.readouterr().out)
    schema = json.loads((package_data.folder("schemas") / "plan.schema.json").read_text())

    jsonschema_rs.validate(schema, found)
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

    assert (
        capsys.readouterr().out.splitlines()[2] == "  double  will run  its input `count` will run"
    )
