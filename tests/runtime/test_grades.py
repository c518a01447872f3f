"""Journals and artifacts of grades, on a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact
from engine.diagnostics import RequestError
from engine.plan import keys
from engine.plan.stage import Node, Plan
from engine.runtime import answers, grades, keeping, runs, transfer
from engine.runtime.eventlog import EventLog
from engine.runtime.events import RunFinished
from engine.runtime.grades import Journal, Session
from engine.runtime.keeping import Keep
from engine.runtime.runs import Run
from engine.runtime.store import Store

ROOT = Path(__file__).parents[2]
FACTS = {"image": "picture", "set": "kept"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def node(name: str) -> Node:
    preimage = {"id": name}
    return Node(name, name, {}, {}, keys.digest(preimage), preimage, 0, {}, {})


def filtered(store: Store, recipe: str = "mine") -> tuple[Run, Artifact]:
    """Return a run whose only node is an artifact to be graded."""
    made = node(f"filter-{recipe}")
    artifact = store.get(made.key)
    if artifact is None:
        staging = store.staging(made.key)
        (staging / "kept-00000.jsonl").write_text("{}\n")
        artifact = store.publish(made, staging, {"kept": 1}, {})
    run = runs.create(store, Plan(recipe, (made,)), {})
    log = EventLog(run.events_path)
    log.append(RunFinished(time=1.0, failed=()))
    log.close()
    return run, artifact


def say(session: Session, *said: tuple[str, str, Any]) -> None:
    journal = Journal(session)
    for task, rubric, value in said:
        journal.add(task=task, row=FACTS, said=rubric, value=value)
    journal.close()


def test_what_was_said_is_published_as_rows(store: Store):
    run, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    say(session, ("a", "accuracy", 5), ("a", "knowledge", 2), ("b", "accuracy", 1))
    artifact = session.publish(tasks, run.id)

    assert artifact is not None
    assert artifact.manifest.parents == (tasks.manifest.key,)
    (first, second) = artifact.rows("grades")
    assert first["grades"] == {"accuracy": 5, "knowledge": 2}
    assert (first["task"], first["image"], first["set"]) == ("a", "picture", "kept")
    assert second["grader"] == "anna"
    assert grades.rows(store, tasks.manifest.key) == [first, second]


def test_an_answer_that_was_taken_back_is_no_grade(store: Store):
    run, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    say(session, ("a", "accuracy", 5), ("a", "accuracy", None))

    assert answers.fold(session.events()) == []
    assert session.publish(tasks, run.id) is None


def test_the_same_words_are_published_once_and_more_words_beside_them(store: Store):
    run, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    say(session, ("a", "accuracy", 5))
    first, again = session.publish(tasks, run.id), session.publish(tasks, "another run")
    say(session, ("a", "accuracy", 4))
    second = session.publish(tasks, run.id)

    assert first == again
    assert second is not None
    assert len(grades.published_keys(store, tasks.manifest.key)) == 2
    (row,) = grades.rows(store, tasks.manifest.key)
    assert row["grades"] == {"accuracy": 4}


def test_two_graders_have_rows_of_their_own(store: Store):
    run, tasks = filtered(store)
    for name, level in (("anna", 5), ("ben", 1)):
        session = Session(store, tasks.manifest.key, name)
        say(session, ("a", "accuracy", level))
        session.publish(tasks, run.id)

    rows = grades.rows(store, tasks.manifest.key)
    assert [(row["grader"], row["grades"]["accuracy"]) for row in rows] == [("anna", 5), ("ben", 1)]


def test_every_answer_before_a_kill_is_there_and_a_torn_line_costs_itself_alone(store: Store):
    run, tasks = filtered(store)
    key = tasks.manifest.key
    code = (
        "import os, sys; from pathlib import Path\n"
        "from engine.runtime.grades import Journal, Session\n"
        "from engine.runtime.store import Store\n"
        "journal = Journal(Session(Store(Path(sys.argv[1])), sys.argv[2], 'anna'))\n"
        "for number in range(20):\n"
        "    journal.add(task=f'{number:02}', row={}, said='accuracy', value=3)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", code, str(store.root), key]
    done = subprocess.run(words, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    session = Session(store, key, "anna")
    (path,) = session.folder.glob("journal.jsonl")
    with path.open("a") as file:
        file.write('{"at": 9e9, "task": "torn", "said": "accu')
    assert len(grades.rows(store, key)) == 20
    say(session, ("20", "accuracy", 3))
    session.publish(tasks, run.id)

    rows = grades.rows(store, key)
    assert [row["task"] for row in rows] == [f"{number:02}" for number in range(21)]


def test_an_answer_that_a_full_disk_tore_is_told_and_the_next_one_is_whole(store: Store):
    _, tasks = filtered(store)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from engine.runtime.grades import Journal, Session\n"
        "from engine.runtime.store import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(Session(Store(Path(sys.argv[1])), sys.argv[2], 'anna'))\n"
        "say = lambda task: journal.add(task=task, row={}, said='accuracy', value=3)\n"
        "say('a')\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "(path,) = journal.session.folder.glob('journal.jsonl')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))\n"
        "try: say('b')\n"
        "except OSError: print('told')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "say('c')\n"
    )
    words = [sys.executable, "-c", code, str(store.root), tasks.manifest.key]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "told\n"
    assert [row["task"] for row in grades.rows(store, tasks.manifest.key)] == ["a", "c"]


def test_order_holds_when_the_clock_is_set_back(store: Store, monkeypatch):
    _, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    moments = iter([1000.0, 1000.0, 5.0, 5.0])
    monkeypatch.setattr("time.time", lambda: next(moments))
    say(session, ("a", "accuracy", 1), ("a", "accuracy", 2), ("a", "accuracy", 3))

    (row,) = answers.fold(session.events())
    assert row.grades == {"accuracy": 3}


def test_a_session_goes_on_where_its_journal_is_lost(store: Store):
    run, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    say(session, ("a", "accuracy", 5))
    session.publish(tasks, run.id)
    (session.folder / "journal.jsonl").unlink()
    say(session, ("b", "accuracy", 4))

    assert [row.task for row in answers.fold(session.events())] == ["a", "b"]


def test_gc_keeps_grades_as_long_as_a_run_reaches_what_was_graded(store: Store):
    run, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    say(session, ("a", "accuracy", 5))
    first = session.publish(tasks, run.id)
    say(session, ("a", "accuracy", 4))
    second = session.publish(tasks, run.id)
    assert first is not None
    assert second is not None
    again = filtered(store)[0]  # another run of the same recipe made the same rows
    now = again.facts()["started_at"]

    keeping.remove(store, keeping.rubbish(store, keep=Keep(num_per_recipe=1), now=now))
    assert not run.path.exists()
    assert store.get(first.manifest.key) is not None
    assert store.get(second.manifest.key) is not None

    keeping.remove(store, keeping.rubbish(store, max_bytes=0, now=now))
    assert store.get(tasks.manifest.key) is None  # can be made anew
    assert store.get(first.manifest.key) is not None  # cannot

    keeping.remove(store, keeping.rubbish(store, keep=Keep(age_s=-1), now=now))
    assert store.get(second.manifest.key) is None
    assert list(grades.graded(store)) == []


def test_gc_leaves_a_session_that_is_open(store: Store):
    _, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    say(session, ("a", "accuracy", 5))
    lock = session.lock()
    assert lock.try_acquire()
    try:
        keeping.remove(store, keeping.rubbish(store, keep=Keep(age_s=-1), now=9e9))
        assert [row.task for row in answers.fold(session.events())] == ["a"]
    finally:
        lock.release()


def test_an_export_takes_grades_along_and_an_import_adds_to_those_that_are_there(
    store: Store, tmp_path: Path
):
    run, tasks = filtered(store)
    key = tasks.manifest.key
    session = Session(store, key, "anna")
    say(session, ("a", "accuracy", 5))
    session.publish(tasks, run.id)
    transfer.export(store, run, tmp_path / "out")
    assert len(grades.rows(Store(tmp_path / "out"), key)) == 1

    other = Store(tmp_path / "other")
    there, same = filtered(other)
    theirs = Session(other, key, "anna")
    say(theirs, ("b", "accuracy", 2))
    theirs.publish(same, there.id)
    transfer.bring_in(tmp_path / "out", other)

    assert [row["task"] for row in grades.rows(other, key)] == ["a", "b"]
    assert {row.task for row in answers.fold(theirs.events())} == {"a", "b"}


def test_an_import_refuses_grades_of_something_else(store: Store, tmp_path: Path):
    run, tasks = filtered(store)
    _, others = filtered(store, "other")
    session = Session(store, others.manifest.key, "anna")
    say(session, ("a", "accuracy", 5))
    artifact = session.publish(others, run.id)
    assert artifact is not None
    transfer.export(store, run, tmp_path / "out")
    transfer._carry([artifact], Store(tmp_path / "out"), run.id)
    path = tmp_path / "out" / transfer.INDEX
    index = json.loads(path.read_text()) | {"grades": [artifact.manifest.key]}
    path.write_text(json.dumps(index))

    with pytest.raises(RequestError, match="grades are not of what its run made"):
        transfer.bring_in(tmp_path / "out", Store(tmp_path / "new"))
    assert tasks.manifest.key in index["keys"]


@pytest.mark.parametrize("line", ["7", "[]", '{"at": "x"}', '{"at": 1, "task": 2}', "\\u0000", ""])
def test_lines_that_are_no_answers_are_passed_over(store: Store, line: str):
    _, tasks = filtered(store)
    session = Session(store, tasks.manifest.key, "anna")
    say(session, ("a", "accuracy", 5))
    with (session.folder / "journal.jsonl").open("a") as file:
        file.write(line + "\n")

    assert [row.task for row in answers.fold(session.events())] == ["a"]


def test_a_journal_is_on_the_disk_before_add_returns(store: Store, monkeypatch):
    _, tasks = filtered(store)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal = Journal(Session(store, tasks.manifest.key, "anna"))
    before = len(synced)
    journal.add(task="a", row=FACTS, said="accuracy", value=5)
    journal.close()

    assert len(synced) == before + 1
