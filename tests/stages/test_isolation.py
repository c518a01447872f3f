from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.backends import Request, Sampling
from engine.diagnostics import StageError
from engine.records import user
from engine.stages._isolation import GUILTY, Isolated, Suspicion
from tests.stages.talking import FakeSession, said


def crashed(stage: str, folder: Path, *texts: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.stages.crashing", stage, str(folder), *texts]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def by_source(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row.get("source_id") or row["meta"]["source_id"]: row for row in rows}


def test_a_pair_that_crashes_the_engine_is_found_and_costs_itself_alone(tmp_path: Path) -> None:
    found = crashed("generate", tmp_path, "7.")  # the caption of one of 48 pairs

    calm, rows = found["calm"]["rows"], found["crashing"]["rows"]
    (guilty,) = [row for row in rows["quarantine"] if row["detail"] == GUILTY]
    bad = guilty["source_id"]
    assert found["calm"]["num_crashes"] == 0
    assert 2 <= found["crashing"]["num_crashes"] <= 3  # eighths of 16, and the proof
    assert by_source(rows["tasks"]).keys() == by_source(calm["tasks"]).keys() - {bad}
    assert [row for row in calm["tasks"] if row["meta"]["source_id"] != bad] == rows["tasks"]


def test_several_bad_rows_are_found_one_after_the_other(tmp_path: Path) -> None:
    found = crashed("generate", tmp_path, "3.", "11.", "40.")

    guilty = [row for row in found["crashing"]["rows"]["quarantine"] if row["detail"] == GUILTY]
    assert len(guilty) == 3


def test_a_judge_that_crashes_at_a_task_drops_that_task(tmp_path: Path) -> None:
    found = crashed("filter", tmp_path, "7?")

    def kept(label: str) -> set[str]:
        return {row["meta"]["source_id"] for row in found[label]["rows"]["kept"]}

    dropped = {
        row["record"]["meta"]["source_id"]: row["reason"]
        for row in found["crashing"]["rows"]["dropped"]
    }
    assert kept("calm") - {"p7"} == kept("crashing")
    assert dropped["p7"] == "judge gave no label"


def test_a_question_that_crashes_the_engine_is_an_answer_that_failed(tmp_path: Path) -> None:
    found = crashed("evaluate.answers", tmp_path, "9?")

    calm, rows = found["calm"]["rows"]["answers"], found["crashing"]["rows"]["answers"]
    assert len(calm) == len(rows)
    assert [row["error"] for row in rows if row["error"]] == [GUILTY]
    assert sum(one != other for one, other in zip(calm, rows, strict=True)) == 1


def test_crashes_without_a_request_in_hand_end_the_stage(tmp_path: Path) -> None:
    Suspicion(tmp_path, "m", has_crashed=False)
    Suspicion(tmp_path, "m", has_crashed=True)
    Suspicion(tmp_path, "m", has_crashed=True)

    with pytest.raises(StageError, match="crashed 3 times with no request in hand"):
        Suspicion(tmp_path, "m", has_crashed=True)


def test_a_process_that_was_killed_from_outside_leaves_no_suspects(tmp_path: Path) -> None:
    Suspicion(tmp_path, "m", has_crashed=False).begin("a")

    after = Suspicion(tmp_path, "m", has_crashed=False)

    assert not after.is_left
    assert not after.guilty


def test_equal_requests_in_hand_are_one_suspect(tmp_path: Path) -> None:
    first = Suspicion(tmp_path, "m", has_crashed=False)
    for _ in range(3):
        first.begin("a")
    first.end("a")

    assert Suspicion(tmp_path, "m", has_crashed=True).guilty == {"a"}


def test_the_log_of_what_is_in_hand_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.stages._isolation.LOG_BYTES", 4096)
    suspicion = Suspicion(tmp_path, "m", has_crashed=False)
    suspicion.begin("still in hand")
    for number in range(2000):
        suspicion.begin(f"{number}")
        suspicion.end(f"{number}")

    assert (tmp_path / "m.log").stat().st_size < 2 * 4096
    assert Suspicion(tmp_path, "m", has_crashed=True).guilty == {"still in hand"}


def test_damaged_notes_of_a_life_before_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(b'{"guilty": ["a"')
    (tmp_path / "m.log").write_bytes(b"\xff\xfe+\n\n-x\n+b\n")

    assert not Suspicion(tmp_path, "m", has_crashed=False).guilty


def test_a_guilty_request_is_never_asked_again(tmp_path: Path) -> None:
    bad, good = Request((user("bad"),)), Request((user("good"),))
    first = Isolated(
        FakeSession(lambda request: said("x")),
        Suspicion(tmp_path, "m", has_crashed=False),
        "model",
        is_continuous=False,
    )
    first._suspicion.begin(_digest(bad))
    session = FakeSession(lambda request: said("x"))
    suspicion = Suspicion(tmp_path, "m", has_crashed=True)
    again = Isolated(session, suspicion, "model", is_continuous=False)

    done = again.generate([bad, good], Sampling(4))

    assert [one.error for one in done] == [GUILTY, None]
    assert session.asked == [good]


def _digest(request: Request) -> str:
    from engine.stages._isolation import digest_of

    return digest_of(request, "model")
