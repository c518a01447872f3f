"""`adapt review` over HTTP, as a browser and as an attacker would use it."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from engine import cli, package_data
from engine.cli import review_sample
from engine.cli.review_sample import Sampling
from engine.rendering.rubrics import RUBRICS, TYPES
from engine.runtime import grades
from engine.runtime.store import Store
from tests.cli.review_client import Client, reviewing
from tests.cli.tasks_run import made
from tests.rendering.finished import finished

ATTACK = """</script><script>alert(1)</script><img src=x onerror="x()"> {{7*7}} \u202e ' " `"""
BODY = json.dumps({}).encode()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that tests only look at, with hostile texts."""
    store = Store(tmp_path_factory.mktemp("hostile") / "store")
    made(store, text=ATTACK)
    with reviewing(store) as client:
        yield client


def review_json(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert cli.main(["review", *words, "--json", "--store", str(store.root)]) == 0
    return json.loads(capsys.readouterr().out)


def filter_key(run: Any) -> str:
    return review_sample.source_of(run, None).filter.key


# Grading ------------------------------------------------------------------------------------


def test_grades_are_kept_as_an_artifact_that_follows_its_schema(store: Store):
    run = made(store)
    with reviewing(store, "--num", "4", "--grader", "anna") as client:
        first, second, third, _ = client.tasks()
        client.grade(first, accuracy=5)
        client.grade(second, accuracy=3)
        client.say(third, "skip", True)
        told = client.stop()

    key = filter_key(run)
    (artifact,) = grades.Session(store, key, "anna").published()
    rows = list(artifact.rows("grades"))
    path = package_data.folder("schemas") / "grades.schema.json"
    schema = json.loads(path.read_text("utf-8"))
    for row in rows:
        jsonschema_rs.validate(schema, row)
    assert [row["grades"].get("accuracy") for row in rows] == [5, 3, None]
    assert [row["is_skipped"] for row in rows] == [False, False, True]
    assert artifact.manifest.preimage["samples"] == [{"set": "mixed", "num": 4, "seed": 42}]
    assert "human grades: 2 tasks by anna" in told
    assert str(artifact.path) in told


def test_a_sitting_goes_on_where_a_kill_ended_it(store: Store, capsys):
    made(store)
    with reviewing(store, "--num", "5") as client:
        task = client.tasks()[0]
        client.grade(task)
        client.stop(signal.SIGKILL)

    found = review_json(store, capsys)["grades"]["tasks"][0]
    assert found["num_tasks"] == 1  # though nothing was published
    with reviewing(store, "--num", "5") as client:
        state = client.get("start").json["graded"][task]
        assert state["is_done"]
        assert len(state["grades"]) == len(RUBRICS)


def test_a_request_to_end_publishes_as_well(store: Store):
    run = made(store)
    with reviewing(store) as client:
        client.grade(client.tasks()[0])
        client.stop(signal.SIGTERM)
        assert client.process.returncode == 0

    assert len(grades.published_keys(store, filter_key(run))) == 1


def test_finish_on_the_page_ends_the_process(store: Store):
    made(store)
    with reviewing(store) as client:
        client.grade(client.tasks()[0])
        assert client.post("finish", {}).json == {"is_finished": True}
        assert client.process.wait(timeout=60) == 0


def test_what_is_taken_back_is_no_grade(store: Store, capsys):
    made(store)
    with reviewing(store) as client:
        task = client.tasks()[0]
        client.say(task, "accuracy", 5)
        client.say(task, "accuracy", 2)
        assert client.post("undo", {}).json["grades"] == {"accuracy": 5}
        assert client.post("undo", {}).json["grades"] == {}
        reply = client.post("undo", {})
        assert (reply.status, reply.json["error"]) == (409, "there is nothing to take back")

    assert review_json(store, capsys)["grades"] is None


def test_the_page_does_not_tell_what_the_filters_said_before_it_is_asked(store: Store):
    made(store)
    with reviewing(store) as client:
        tasks = client.tasks()
        told = client.get("start").body + client.get("").body
        assert b"secret" not in told
        assert b'"set"' not in told
        refused = client.post("reveal", {"task": tasks[0]})
        assert (refused.status, refused.json["error"]) == (409, "grade the task first")
        sets = []
        for task in tasks:
            client.grade(task)
            sets.append(client.post("reveal", {"task": task}).json["verdict"])

    assert Counter(found["set"] for found in sets) == {"kept": 6, "dropped": 4}
    dropped = next(found for found in sets if found["set"] == "dropped")
    assert (dropped["filter"], dropped["reason"]) == ("consistency", "secret reason")


def test_grades_are_final_once_the_verdict_was_shown(store: Store, capsys):
    made(store)
    with reviewing(store) as client:
        task = client.tasks()[0]
        client.grade(task, accuracy=5)
        client.post("reveal", {"task": task})
        for refused in (client.say(task, "accuracy", 1), client.post("undo", {})):
            assert refused.status == 409
            assert "final" in refused.json["error"]

    (found,) = review_json(store, capsys)["grades"]["tasks"]
    assert found["sets"][0]["means"][2]["mean"] == 100


@pytest.mark.parametrize(
    "body",
    [
        {"said": "accuracy", "value": 6},
        {"said": "accuracy", "value": "5"},
        {"said": "accuracy", "value": True},
        {"said": "accuracy", "value": 4.5},
        {"said": "consistency", "value": 1},
        {"said": "type", "value": "cooking"},
        {"said": "set", "value": "kept"},
        {"said": "reveal", "value": True},
        {"said": ["accuracy"], "value": 5},
        {"said": "skip", "value": "yes"},
        {},
    ],
)
def test_what_is_no_answer_is_refused(shared: Client, body: dict[str, Any]):
    task = shared.tasks()[0]
    reply = shared.post("say", {"task": task, **body})

    assert reply.status == 400
    assert shared.get("start").json["graded"][task]["grades"] == {}


def test_a_task_outside_the_sample_is_refused(shared: Client):
    assert shared.say("../../etc/passwd", "accuracy", 5).status == 400
    assert shared.post("reveal", {"task": ["x"]}).status == 400


def test_two_graders_of_one_sample_are_compared(store: Store, capsys):
    made(store)
    said = {"anna": [5, 5, 1, 1], "ben": [5, 4, 1, 1]}
    for name, levels in said.items():
        with reviewing(store, "--num", "4", "--grader", name) as client:
            for task, level in zip(client.tasks(), levels, strict=True):
                client.grade(task, accuracy=level, consistency=level > 3)
            client.stop()

    (found,) = review_json(store, capsys)["grades"]["tasks"]
    agreement = {row["rubric"]: row for row in found["agreement"]}
    assert found["graders"] == ["anna", "ben"]
    assert found["num_tasks"] == 4
    assert agreement["consistency"]["kappa"] == 1
    assert 0.9 < agreement["accuracy"]["kappa"] < 1
    assert agreement["accuracy"]["same_percent"] == 75
    assert agreement["type"]["kappa"] is None


def test_two_sittings_of_one_grader_at_once_are_refused(store: Store, capsys):
    run = made(store)
    with reviewing(store, "--grader", "anna"):
        words = ["review", run.id, "--grader", "anna", "--store", str(store.root)]
        assert cli.main(words) == 1
        assert "error[review-open]" in capsys.readouterr().err
        with reviewing(store, "--grader", "ben") as other:
            assert other.tasks()


# The sample ---------------------------------------------------------------------------------


def sample(store: Store, run: Any, num: int, of_set: str = "mixed", seed: int = 0) -> list[Any]:
    tasks = review_sample.filtered(run, review_sample.source_of(run, None), store)
    return review_sample.draw(tasks, Sampling(num, of_set, seed))


def ids(tasks: list[Any]) -> list[str]:
    return [task.record.id for task in tasks]


def test_a_sample_is_half_kept_and_half_dropped_in_one_order(store: Store):
    run = made(store, 40, 30)
    chosen = sample(store, run, 20)

    assert Counter(task.of_set for task in chosen) == {"kept": 10, "dropped": 10}
    assert len({task.of_set for task in chosen[:8]}) == 2  # not one set after the other
    assert ids(sample(store, run, 20)) == ids(chosen)
    assert set(ids(sample(store, run, 20, seed=1))) != set(ids(chosen))


def test_a_larger_sample_holds_the_smaller_one(store: Store):
    run = made(store, 40, 30)

    for of_set in ("mixed", "kept", "dropped", "generated"):
        small, large = sample(store, run, 10, of_set), sample(store, run, 30, of_set)
        assert set(ids(small)) < set(ids(large))


def test_what_one_set_lacks_comes_from_the_other(store: Store):
    run = made(store, 20, 3)

    assert Counter(t.of_set for t in sample(store, run, 12)) == {"kept": 9, "dropped": 3}
    assert Counter(t.of_set for t in sample(store, run, 99)) == {"kept": 20, "dropped": 3}


def test_generated_tasks_come_as_they_are(store: Store):
    run = made(store, 90, 10)
    found = Counter(task.of_set for task in sample(store, run, 50, "generated"))

    assert found["kept"] > 4 * found["dropped"]
    assert {task.of_set for task in sample(store, run, 50, "dropped")} == {"dropped"}


def test_a_rerun_that_made_the_same_tasks_has_sample_and_grades(store: Store, capsys):
    first = made(store)
    with reviewing(store, first.id) as client:
        before = client.tasks()
        client.grade(before[0])
        client.stop()
    again = made(store)

    assert again.id != first.id
    with reviewing(store, again.id) as client:
        assert client.tasks() == before
        assert client.get("start").json["graded"][before[0]]["is_done"]
    assert review_json(store, capsys, again.id)["grades"]["tasks"][0]["num_tasks"] == 1


def test_each_arm_has_its_tasks(store: Store, capsys):
    run = made(store, arms=("one", "two"))
    with reviewing(store, run.id, "--arm", "two") as client:
        rows = client.get("start").json["rows"]
        assert all(" two" in row["instruction"] for row in rows)
        client.grade(rows[0]["task"])
        client.stop()

    (found,) = review_json(store, capsys)["grades"]["tasks"]
    assert found["arms"] == ["two"]
    assert cli.main(["review", run.id, "--arm", "tow", "--store", str(store.root)]) == 1
    assert "error[unknown-arm]" in (err := capsys.readouterr().err)
    assert "`two` is close" in err


def test_repaired_tasks_are_graded_by_themselves(store: Store, capsys):
    run = made(store, is_repaired=True)
    with reviewing(store, run.id, "--repaired") as client:
        (row,) = client.get("start").json["rows"]
        assert row["instruction"] == "instruction mended"
        assert row["caption"].startswith("caption 0")
        client.grade(row["task"])
        client.stop()

    (found,) = review_json(store, capsys)["grades"]["tasks"]
    assert (found["repaired"], found["num_tasks"]) == (True, 1)
    plain = made(Store(store.root.with_name("plain")))
    words = ["review", plain.id, "--repaired", "--store", str(store.root.with_name("plain"))]
    assert cli.main(words) == 1
    assert "repairs no tasks" in capsys.readouterr().err


def test_a_set_without_tasks_is_told(store: Store, capsys):
    run = made(store, 3, 0)

    assert cli.main(["review", run.id, "--set", "dropped", "--store", str(store.root)]) == 1
    assert "error[no-tasks]: there are no tasks in `dropped`" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--num", "0"], ["--port", "99999"], ["--grader", " "]])
def test_a_flag_that_makes_no_sense_is_a_usage_error(store: Store, words: list[str], capsys):
    assert cli.main(["review", *words, "--store", str(store.root)]) == 2


def test_a_port_that_is_taken_is_told(store: Store, capsys):
    run = made(store)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli.main(["review", run.id, "--port", port, "--store", str(store.root)]) == 1

    assert f"port {port} cannot be used" in capsys.readouterr().err


def test_a_store_that_cannot_be_written_is_told(store: Store, capsys):
    run = made(store)
    (store.root / "locks").write_text("in the way")

    assert cli.main(["review", run.id, "--store", str(store.root)]) == 1
    assert "error[store-not-writable]" in capsys.readouterr().err


# What the page gets -------------------------------------------------------------------------


def test_a_row_has_its_texts_and_the_answer_that_is_trained_on(shared: Client):
    row = shared.get("start").json["rows"][0]

    assert row["caption"].startswith("caption ")
    assert row["instruction"].startswith("instruction ")
    assert row["informative"] in row["joined"]
    assert row["precise"] in row["joined"]
    assert row["joined"] != row["informative"]


def test_a_picture_is_made_anew(shared: Client):
    from PIL import Image

    reply = shared.get("picture/3")

    assert reply.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(reply.body)).size == (90, 60)


def test_a_picture_that_cannot_be_read_is_no_failure(store: Store):
    made(store)
    for path in store.root.glob("artifacts/*/*/images-*.arrow"):
        content = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(content.replace(b"\x89PNG", b"xxxx"))
    with reviewing(store) as client:
        assert client.get("picture/0").status == 404
        client.grade(client.tasks()[0])


def test_hostile_texts_come_as_data_and_are_no_part_of_the_page(shared: Client):
    page, start = shared.get(""), shared.get("start")

    assert "alert(1)" not in page.body.decode()
    assert start.headers["content-type"].startswith("application/json")
    assert ATTACK in start.json["rows"][0]["caption"]


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_names_nothing_outside_and_runs_only_what_is_in_it(shared: Client):
    reply = shared.get("")
    text = reply.body.decode()
    policy = reply.headers["content-security-policy"]
    elements = Elements(text).found
    names = {name for _, attributes in elements for name in attributes}

    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("<!doctype html>", ""))
    assert not {name for name in names if name.startswith("on")} | {"style"} & names
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert "innerHTML" not in text
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["referrer-policy"] == "no-referrer"


# Who is let in ------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no 127.0.0.2")
def test_no_other_address_of_this_machine_listens(shared: Client):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", shared.port), timeout=2)


@pytest.mark.parametrize("path", ["/", "/wrong/", "/start", "/favicon.ico", "", "/\u00e9/"])
def test_nobody_is_let_in_without_the_token(shared: Client, path: str):
    for method in ("GET", "POST"):
        raw = path.encode("utf-8").decode("latin-1")
        with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as line:
            line.sendall(
                f"{method} {raw or '*'} HTTP/1.1\r\nHost: 127.0.0.1:{shared.port}\r\n"
                "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".encode("latin-1")
            )
            assert line.recv(100).startswith(b"HTTP/1.1 403 ")


def test_a_browser_is_opened_without_the_token_among_its_words(store: Store, tmp_path, monkeypatch):
    made(store)
    script, told = tmp_path / "browser", tmp_path / "told"
    script.write_text(f'#!/bin/sh\necho "$1" > {told}\ncat "${{1#file://}}" >> {told}\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    with reviewing(store, "--open") as client:
        for _ in range(400):
            if told.is_file() and len(told.read_text().splitlines()) == 2:
                break
            time.sleep(0.05)
        words, leads = told.read_text().splitlines()
        client.stop()

    assert client.path.strip("/") not in words
    assert client.url in leads
    assert not Path(words.removeprefix("file://")).exists()


def test_an_answer_needs_the_token(shared: Client):
    task = shared.tasks()[0]
    body = json.dumps({"task": task, "said": "accuracy", "value": 5}).encode()
    token = shared.path.strip("/")
    for path in ("/say", f"/{token[:-1]}/say", f"/{token}x/say", f"/say?token={token}", "//say"):
        reply = shared.ask(path, "POST", body, Content_Type="application/json")
        assert reply.status == 403
        assert token.encode() not in reply.body

    assert shared.get("start").json["graded"][task]["grades"] == {}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "", "[::1]"])
def test_another_name_is_refused_whatever_it_knows(shared: Client, host: str):
    reply = shared.ask(shared.path, Host=host.format(port=shared.port))

    assert reply.status == 403


def test_this_machine_by_name_is_let_in(shared: Client):
    assert shared.ask(shared.path, Host=f"localhost:{shared.port}").status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_another_site_cannot_answer(shared: Client, origin: str):
    task = shared.tasks()[0]
    body = {"task": task, "said": "accuracy", "value": 5}

    assert shared.post("say", body, Origin=origin).status == 403
    own = f"http://127.0.0.1:{shared.port}"
    assert shared.post("undo", {}, Origin=own).status == 409  # let in, and nothing to take back


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_form_of_another_site_is_no_answer(shared: Client, kind: str):
    assert shared.post("say", {}, Content_Type=kind).status == 415


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "picture/../../../etc/passwd",
        "picture/0/../1",
        "picture/-1",
        "picture/999",
        "picture/99999999999999999999",
        "picture/\u0663",
        "picture/",
        "review.js",
        "start/",
        "start?x",
    ],
)
def test_no_path_leads_to_a_file(shared: Client, name: str):
    from urllib.parse import quote

    reply = shared.get(quote(name, safe="/.%-?"))

    assert reply.status == 404
    assert set(reply.json) == {"error"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * 5000, 413),
        (b"[" * 3000, 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"", 400),
    ],
)
def test_a_body_that_is_no_answer_is_refused(shared: Client, body: bytes, status: int):
    path = shared.path + "say"

    assert shared.ask(path, "POST", body, Content_Type="application/json").status == status


def test_other_methods_are_refused(shared: Client):
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert shared.ask(shared.path, method).status == 501


def test_a_client_that_hangs_holds_up_nobody(shared: Client):
    with socket.create_connection(("127.0.0.1", shared.port)) as line:
        line.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert shared.get("start").status == 200


# The report ---------------------------------------------------------------------------------


def summary_schema() -> Any:
    path = package_data.folder("schemas") / "summary.schema.json"
    return json.loads(path.read_text("utf-8"))


def test_the_report_of_a_graded_run_shows_grades_everywhere(store: Store, tmp_path, capsys):
    run = finished(store, tmp_path / "arm")
    with reviewing(store, run.id, "--grader", "<b>anna</b>") as client:
        for task, level in zip(client.tasks(), (5, 4, 3, 1), strict=True):
            client.grade(task, accuracy=level, type=TYPES[level])
        client.stop()
    words = ["report", run.id, "--store", str(store.root)]
    assert cli.main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    page = Path(text.splitlines()[-1].removeprefix("report  ")).read_text("utf-8")

    jsonschema_rs.validate(summary_schema(), summary)
    (found,) = summary["grades"]["tasks"]
    assert found["population"] == {"kept": 1, "dropped": 3}
    assert [part["set"] for part in found["sets"]] == ["generated", "kept", "dropped"]
    assert found["sets"][0]["diversity"]["num_types"] == 4
    assert "human grades: 4 tasks by <b>anna</b>" in text
    assert "<h2>Human grades</h2>" in page
    assert "&lt;b&gt;anna" in page
    assert "<b>anna" not in page


def test_the_report_artifact_stays_as_it_was(store: Store, tmp_path, capsys):
    run = finished(store, tmp_path / "arm")
    (made_page,) = store.root.glob("artifacts/*/*/report.html")
    run.report_path.hardlink_to(made_page)  # as `adapt run` does
    before = made_page.read_bytes()
    with reviewing(store, run.id) as client:
        client.grade(client.tasks()[0])
        client.stop()
    assert cli.main(["report", run.id, "--store", str(store.root)]) == 0

    assert made_page.read_bytes() == before
    assert b"Human grades" in run.report_path.read_bytes()
    assert cli.main(["store", "verify", "--store", str(store.root)]) == 0


def test_a_run_that_nobody_graded_has_no_section(store: Store, tmp_path, capsys):
    run = finished(store, tmp_path / "arm")
    words = ["report", run.id, "--store", str(store.root)]
    cli.main([*words, "--json"])
    assert "grades" not in json.loads(capsys.readouterr().out)
    cli.main(words)
    text = capsys.readouterr().out

    assert "grades" not in text
    assert "Human grades" not in Path(text.splitlines()[-1].removeprefix("report  ")).read_text()


def test_means_before_the_filters_weigh_kept_and_dropped_by_their_numbers(store: Store, capsys):
    run = made(store, 30, 10)
    chosen = {task.record.id: task.of_set for task in sample(store, run, 20, seed=42)}
    with reviewing(store, run.id, "--num", "20") as client:
        for task in client.tasks():
            client.say(task, "consistency", chosen[task] == "kept")
        client.stop()

    (found,) = review_json(store, capsys)["grades"]["tasks"]
    means = {part["set"]: part["means"][0] for part in found["sets"]}
    assert means["generated"]["mean"] == pytest.approx(75)
    assert (means["kept"]["mean"], means["dropped"]["mean"]) == (100, 0)
    assert means["kept"]["ci_low"] < 80  # ten tasks are not all tasks


def test_grades_of_kept_tasks_alone_say_nothing_of_all(store: Store, capsys):
    run = made(store, 10, 10)
    with reviewing(store, run.id, "--set", "kept") as client:
        for task in client.tasks():
            client.say(task, "accuracy", 5)
        client.stop()

    (found,) = review_json(store, capsys)["grades"]["tasks"]
    assert [part["set"] for part in found["sets"]] == ["kept"]


def test_grades_from_elsewhere_that_make_no_sense_count_nowhere(store: Store, capsys):
    run = made(store)
    session = grades.Session(store, filter_key(run), "anna")
    journal = grades.Journal(session)
    facts = {"image": "x", "set": "kept"}
    for said, value in (("accuracy", 5), ("accuracy ", 5), ("knowledge", "<b>"), ("type", 3)):
        journal.add(task="a", row=facts, said=said, value=value)
    journal.add(task="b", row={"set": "stolen"}, said="accuracy", value=1)
    journal.close()

    (found,) = review_json(store, capsys)["grades"]["tasks"]
    (part,) = found["sets"]
    assert [row["rubric"] for row in part["means"]] == [
        "accuracy", "reasoning right", "conclusion right"
    ]  # fmt: skip
    assert part["diversity"]["num_tasks"] == 0
