from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli import again
from engine.runtime import runs, store
from engine.runtime.store import Store
from tests.bench import nine, peers

RECIPE = 'stages:\n  one: {needs: [], "value": 1}\n  two: {needs: [one], "value": 1}\n'


class Shell:
    """Runs two tasks that do nothing with the real command line, each time in a new process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "two.yaml"
        self.recipe.write_text(RECIPE)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(peers.ROOT),
        }

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        words = ["run", "two.yaml", "--threads", "2", *flags]
        command = [sys.executable, "-X", "importtime", nine.__file__, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done

    @property
    def store(self) -> Store:
        return Store(self.folder / ".adapt")

    def artifact(self, name: str) -> Path:
        (node,) = (node for node in runs.newest(self.store).plan().nodes if node.id == name)
        return self.store.get(node.key).path


def is_quick(done: subprocess.CompletedProcess[str]) -> bool:
    return "engine.runtime" not in done.stderr


def said(done: subprocess.CompletedProcess[str]) -> str:
    return re.sub(r"two-\d{8}-\d{6}-[0-9a-f]{4}", "RUN", done.stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A recipe that was run whole."""
    shell = Shell(tmp_path_factory.mktemp("again"))
    assert not is_quick(shell.run())
    return shell


@pytest.fixture
def shell(finished: Shell) -> Shell:
    """The same in a state that the last test cannot have spoilt."""
    shell = Shell(finished.folder)
    if not is_quick(shell.run()):
        assert is_quick(shell.run())
    return shell


def test_a_run_with_nothing_to_do_says_the_same_again_without_the_engine(shell: Shell):
    quick = shell.run()
    shutil.rmtree(shell.folder / "cache" / "adapt" / "again")
    whole = shell.run()

    assert is_quick(quick)
    assert not is_quick(whole)
    assert said(quick) == said(whole) == "every stage is cached (2 nodes): nothing to run\n"


def test_it_leaves_a_run_like_any_other(shell: Shell):
    shutil.rmtree(shell.folder / "cache" / "adapt" / "again")
    shell.run()
    whole = runs.newest(shell.store)
    assert is_quick(shell.run())
    quick = runs.newest(shell.store)

    assert quick.id != whole.id
    assert quick.status().state == "finished"
    assert {node.state for node in quick.status().nodes.values()} == {"cached"}
    assert quick.plan() == whole.plan()
    assert quick.facts()["started_at"] > whole.facts()["started_at"]
    told = ("run", "started_at")
    first, second = ({**run.facts(), **dict.fromkeys(told)} for run in (whole, quick))
    assert first == second
    assert {path.name for path in whole.path.iterdir()} == {p.name for p in quick.path.iterdir()}


def test_the_first_run_after_a_whole_one_is_quick(shell: Shell):
    shutil.rmtree(shell.folder / ".adapt")
    whole = shell.run()
    quick = shell.run()

    assert (is_quick(whole), is_quick(quick)) == (False, True)
    assert said(quick) == "every stage is cached (2 nodes): nothing to run\n"
    assert len(runs.all_runs(shell.store)) == 2
    assert not list((shell.folder / ".adapt" / "tmp").iterdir())


def test_the_first_json_after_a_whole_run_names_its_own_run(shell: Shell):
    shutil.rmtree(shell.folder / ".adapt")
    shell.run("--json")
    quick = shell.run("--json")

    *_, found = events_of(quick)
    assert is_quick(quick)
    assert found["run"] == runs.newest(shell.store).id
    assert {node["state"] for node in found["nodes"]} == {"cached"}
    shutil.rmtree(shell.folder / "cache" / "adapt" / "again")
    whole = shell.run("--json")
    assert [timeless(event) for event in events_of(whole)] == [
        timeless(event) for event in events_of(quick)
    ]


def test_its_json_is_the_log_of_its_own_run(shell: Shell):
    shell.run("--json")
    quick = shell.run("--json")

    *lines, last = quick.stdout.splitlines()
    run = runs.newest(shell.store)
    assert is_quick(quick)
    assert lines == run.events_path.read_text().splitlines()
    assert json.loads(last)["run"] == run.id
    assert all(run.facts()["started_at"] - 5 < event["time"] for event in events_of(quick))


def test_its_quiet_json_is_the_result_alone(shell: Shell):
    shell.run("--json", "--quiet")
    quick = shell.run("--json", "--quiet")

    assert is_quick(quick)
    assert json.loads(quick.stdout)["run"] == runs.newest(shell.store).id


def events_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def timeless(value: Any) -> Any:
    """Return an event without what differs between two runs."""
    if isinstance(value, dict):
        passing = ("time", "run", "holder", "ended_at", "started_at")
        return {name: timeless(item) for name, item in value.items() if name not in passing}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def lose_a_file(shell: Shell) -> None:
    (shell.artifact("one") / "made.json").unlink()


def cut_a_file(shell: Shell) -> None:
    path = shell.artifact("two") / "made.json"
    path.chmod(0o644)
    os.truncate(path, 3)


def damage_a_manifest(shell: Shell) -> None:
    path = shell.artifact("two") / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("sha256", "sha255"))


def touch_a_file(shell: Shell) -> None:
    (shell.artifact("two") / "made.json").touch()


def change_a_file(shell: Shell) -> None:
    path = shell.artifact("two") / "made.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("two", "owt"))


def lose_an_artifact(shell: Shell) -> None:
    shutil.rmtree(shell.artifact("one"))


def change_the_recipe(shell: Shell) -> None:
    found = shell.recipe.stat()
    shell.recipe.write_text(RECIPE.replace('"value": 1}\n', '"value": 7}\n', 1))
    os.utime(shell.recipe, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize(
    ("move", "num_ran"),
    [
        (lose_a_file, 1),
        (cut_a_file, 1),
        (damage_a_manifest, 1),
        (touch_a_file, 0),
        (change_a_file, 1),
        (lose_an_artifact, 1),
        (change_the_recipe, 2),
    ],
)
def test_what_has_gone_is_made_again(shell: Shell, move: Callable[[Shell], None], num_ran: int):
    move(shell)
    done = shell.run()

    assert not is_quick(done)
    states = [node.state for node in runs.newest(shell.store).status().nodes.values()]
    assert states.count("ran") == num_ran


def test_another_environment_asks_again(shell: Shell):
    shell.environ["ADAPT_OFFLINE"] = "1"

    assert not is_quick(shell.run())
    assert runs.newest(shell.store).facts()["settings"]["is_offline"] is True


def test_settings_that_are_there_now_are_read(shell: Shell):
    path = shell.folder / "home" / ".config" / "adapt" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("offline: true\n")
    try:
        assert not is_quick(shell.run())
    finally:
        path.unlink()
        path.parent.rmdir()


def test_an_entry_that_was_damaged_is_done_without(shell: Shell):
    for path in (shell.folder / "cache" / "adapt" / "again").iterdir():
        path.write_text(path.read_text()[:-9])

    assert not is_quick(shell.run())


def test_a_store_that_cannot_be_written_is_told_as_ever(shell: Shell):
    store = shell.folder / ".adapt" / "runs"
    moved = store.rename(store.with_name("elsewhere"))
    store.write_text("a file where the folder was")
    try:
        with pytest.raises(AssertionError, match="cannot be written"):
            shell.run()
    finally:
        store.unlink()
        moved.rename(store)


def test_no_value_of_the_environment_is_written_down(shell: Shell):
    shell.environ["MY_TOKEN"] = "a-secret-value"
    shell.run()
    assert is_quick(shell.run())

    for path in shell.folder.joinpath("cache").rglob("*.json"):
        assert "a-secret-value" not in path.read_text()


def test_the_time_of_published_files_is_the_one_of_the_store():
    assert again.SEALED_NS == store.SEALED_NS
