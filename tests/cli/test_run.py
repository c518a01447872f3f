from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import jsonschema_rs
import pytest

from engine import package_data
from engine.diagnostics import RequestError
from engine.plan.stage import Plan
from engine.runtime import runs
from engine.runtime.store import Store
from tests.cli.fake_adapt import command, run_fake
from tests.runtime import test_events as known
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.test_local import num_marks, wait_until

RECIPE = "recipe: 1\nname: fake\nsource: {use: nothing}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "fake.yaml"
    path.write_text(RECIPE)
    return path


def fine(note: str = "") -> Plan:
    build = PlanBuilder()
    build.add("count", note=note)
    build.add("double", "count")
    return build.plan()


def failing(how: str = "stage", stage: str = "fail") -> Plan:
    build = PlanBuilder()
    build.add("count")
    build.add(stage, "count", how=how)
    return build.plan()


def slow(tmp_path: Path) -> Plan:
    build = PlanBuilder()
    build.add("count")
    build.add("slow", "count", num_batches=300, batch_s=0.1, marks=str(tmp_path / "marks"))
    return build.plan()


def test_a_run_shows_its_plan_and_its_nodes(recipe: Path, capsys: pytest.CaptureFixture[str]):
    code = run_fake(fine(), recipe, recipe.parent / "store")

    out = capsys.readouterr().out
    assert code == 0
    assert "plan of fake: 2 nodes, 0 cached, 2 to run" in out
    assert "count: started" in out
    assert "count: done in" in out


def test_a_run_with_nothing_to_do_says_so(recipe: Path, capsys: pytest.CaptureFixture[str]):
    run_fake(fine(), recipe, recipe.parent / "store")
    capsys.readouterr()
    code = run_fake(fine(), recipe, recipe.parent / "store")

    assert code == 0
    assert capsys.readouterr().out == "every stage is cached (2 nodes): nothing to run\n"


def test_a_failed_node_names_the_recipe_line_and_the_command_for_it_alone(
    recipe: Path, capsys: pytest.CaptureFixture[str]
):
    code = run_fake(failing(), recipe, recipe.parent / "store")

    store = recipe.parent / "store"
    err = capsys.readouterr().err
    (run,) = runs.all_runs(Store(store))
    assert code == 3
    assert err == (
        "error[stage-failed]: `fail` failed: there are no rows to read\n"
        f"  --> {recipe}:1:1\n"
        "    1 | recipe: 1\n"
        "      | ^\n"
        "  help: choose another source\n"
        f"  last lines of {run.log_path('fail')}:\n"
        "    about to fail\n"
        f"  run just this node again: adapt run {recipe} --store {store} --only fail\n\n"
        "2 nodes: 1 ran, 1 failed; what is finished is kept\n"
    )


def test_a_failed_report_warns_and_does_not_fail_the_run(
    recipe: Path, capsys: pytest.CaptureFixture[str]
):
    code = run_fake(failing(stage="report"), recipe, recipe.parent / "store")

    assert code == 0
    assert "warning[report-failed]: the report could not be made" in capsys.readouterr().err


def test_only_runs_a_node_and_what_it_needs(recipe: Path):
    build = PlanBuilder()
    build.add("count")
    build.add("double", "count")
    build.add("fail", "double")
    code = run_fake(build.plan(), recipe, recipe.parent / "store", "--only", "double")

    (run,) = runs.all_runs(Store(recipe.parent / "store"))
    assert code == 0
    assert list(run.status().nodes) == ["count", "double"]


def test_json_is_the_lines_of_the_log_and_then_the_result(
    recipe: Path, capsys: pytest.CaptureFixture[str]
):
    code = run_fake(failing(), recipe, recipe.parent / "store", "--json")

    shown = capsys.readouterr()
    *lines, last = shown.out.splitlines()
    (run,) = runs.all_runs(Store(recipe.parent / "store"))
    assert lines == run.events_path.read_text().splitlines()
    validator = jsonschema_rs.validator_for(known.schema())
    for line in (*lines, last):
        validator.validate(json.loads(line))
    found = json.loads(last)
    assert (found["type"], found["exit_code"]) == ("result", code) == ("result", 3)
    assert [(node["id"], node["state"]) for node in found["nodes"]] == [
        ("count", "ran"),
        ("fail", "failed"),
    ]
    assert found["failures"][0]["message"] == "there are no rows to read"
    assert found["failures"][0]["line"] == 1
    assert "fail: FAILED: there are no rows to read" in shown.err  # people read along


def test_quiet_json_is_the_result_alone(recipe: Path, capsys: pytest.CaptureFixture[str]):
    run_fake(fine(), recipe, recipe.parent / "store", "--json", "--quiet")

    shown = capsys.readouterr()
    assert json.loads(shown.out)["state"] == "finished"
    assert shown.err == ""


def test_a_quiet_run_prints_failures_and_the_end_alone(
    recipe: Path, capsys: pytest.CaptureFixture[str]
):
    run_fake(failing(), recipe, recipe.parent / "store", "--quiet")

    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    assert line.endswith("fail: FAILED: there are no rows to read")
    assert "error[stage-failed]: `fail` failed" in shown.err


def test_a_reader_that_goes_away_does_not_stop_a_run(tmp_path: Path):
    build = PlanBuilder()
    build.add("count")
    build.add("slow", "count", num_batches=3, batch_s=0.3)
    for flags in (("--json",), ()):
        folder = tmp_path / "-".join(("run", *flags))
        folder.mkdir()
        (folder / "fake.yaml").write_text(RECIPE)
        engine = subprocess.Popen(
            command(build.plan(), folder, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert engine.stdout is not None
        engine.stdout.readline()
        engine.stdout.close()
        _, err = engine.communicate(timeout=20)

        (run,) = runs.all_runs(Store(folder / "store"))
        assert (engine.returncode, run.status().state) == (0, "finished"), err


def test_the_facts_of_a_run_fit_their_schema_and_hold_no_environment(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run_fake(fine(), recipe, recipe.parent / "store")

    (run,) = runs.all_runs(Store(recipe.parent / "store"))
    schema = json.loads((package_data.folder("schemas") / "run.schema.json").read_text())
    jsonschema_rs.validate(schema, run.facts())
    assert "hf_secret" not in json.dumps(run.facts())
    assert run.id.startswith("fake-")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
def test_a_stopped_run_can_go_on(recipe: Path, number: signal.Signals, code: int):
    folder = recipe.parent
    engine = subprocess.Popen(
        command(slow(folder), folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: num_marks(folder) >= 1)
    engine.send_signal(number)
    _, err = engine.communicate(timeout=15)

    assert engine.returncode == code
    assert "stopped; finished stages are kept" in err
    assert Store(folder / "store").get(slow(folder).node("count").key) is not None


def test_a_store_that_cannot_be_written_is_the_users_to_change(recipe: Path):
    store = recipe.parent / "store"
    store.write_text("a file, not a folder")

    with pytest.raises(RequestError, match=r"the store .* cannot be written: Not a directory"):
        run_fake(fine(), recipe, store)
