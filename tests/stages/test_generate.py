from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine.artifacts import Artifact, Outputs
from engine.backends import Completion, Request, Sampling
from engine.diagnostics import StageError
from engine.plugin import ModelUse
from engine.records import Record
from engine.stages import generate
from engine.stages.generate import CUT, FAILED, Params, write_tasks
from tests.stages.running import Bench
from tests.stages.talking import (
    FakeSession,
    a_pair,
    dialogue_turns,
    image_bank,
    prompt_texts,
    published,
    rows_artifact,
    said,
)

PRECISE, INFORMATIVE = "Answer with a precise response.\n", "Answer with an informative response.\n"
PARAMS = Params(
    generator=ModelUse(model="m"),
    prompt="synthesize@1",
    max_new_tokens=64,
    temperature=0.0,
    answer_temperature=None,
    row_set="pairs",
)
ANEW = replace(PARAMS, temperature=0.7, answer_temperature=0.0)
GOOD = dialogue_turns(PRECISE + "What?", "a cat", INFORMATIVE + "What?", "It has whiskers.")


def written(
    folder: Path,
    session: FakeSession,
    num_pairs: int,
    scratch: str = "s",
    params: Params = PARAMS,
) -> tuple[Artifact, list[Record]]:
    bank, digests = image_bank(folder / f"images-{len(list(folder.iterdir()))}", num_pairs)
    pairs = [a_pair(number, digest) for number, digest in enumerate(digests)]
    bench = Bench(folder, prompts=prompt_texts())
    outputs = Outputs(folder / f"out-{len(list(folder.iterdir()))}")
    outputs.path.mkdir()
    try:
        given = rows_artifact(folder / f"pairs-{len(list(folder.iterdir()))}", pairs=pairs)
        write_tasks(given, bank, session, params, outputs, bench.tools(scratch))
    finally:
        outputs.counts()
    return published(outputs), pairs


def test_a_task_keeps_its_image_and_names_its_pair(tmp_path: Path) -> None:
    found, (pair,) = written(tmp_path, FakeSession(lambda request: said(*GOOD)), 1)

    (task,) = found.records("tasks")
    assert (task.images, task.meta.lineage) == (pair.images, (pair.id,))
    assert task.instruction == "What?"
    assert task.answer("informative") == "It has whiskers."
    assert task.answer("precise") == "a cat"


def test_the_synthesizer_sees_image_and_caption_and_opens_a_user_turn(tmp_path: Path) -> None:
    session = FakeSession(lambda request: said(*GOOD))

    written(tmp_path, session, 1)

    (request,) = session.asked
    assert [turn.text for turn in request.turns] == ["Describe the image.", "Caption 0."]
    assert (request.opens, len(request.images)) == ("user", 1)


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (said(finish="error", error="the image is broken"), generate.FAILED),
        (said(*GOOD[:2], finish="length"), generate.CUT),
        (said(*GOOD[:2]), "no instruction has both answers"),
        (said(), "nothing was written"),
        (said(*dialogue_turns("What?", "a cat")), "no question under a header"),
    ],
)
def test_a_bad_output_costs_its_own_pair_alone(
    tmp_path: Path, completion: Completion, reason: str
) -> None:
    def rule(request: Request) -> Completion:
        return completion if request.turns[1].text == "Caption 1." else said(*GOOD)

    found, pairs = written(tmp_path, FakeSession(rule), 3)

    assert [row["source_id"] for row in found.rows("quarantine")] == ["p1"]
    assert [row["reason"] for row in found.rows("quarantine")] == [reason]
    assert [task.meta.source_id for task in found.records("tasks")] == ["p0", "p2"]
    assert found.num_rows("num_pairs") == len(pairs)


def test_a_synthesizer_that_fails_everywhere_is_an_error(tmp_path: Path) -> None:
    silent = FakeSession(lambda request: said(finish="error", error="no memory"))

    with pytest.raises(StageError, match=r"every request to the synthesizer failed.*no memory"):
        written(tmp_path, silent, 3)


def answer_anew(request: Request) -> Completion:
    """Write a task when asked for one; answer its question otherwise."""
    if request.opens == "user":
        return said(*GOOD)
    return said("on its face" if "informative" in request.turns[-1].text else "whiskers")


def test_answers_can_be_asked_for_anew(tmp_path: Path) -> None:
    session = FakeSession(answer_anew)
    found, _ = written(tmp_path, session, 2, params=ANEW)

    for task in found.records("tasks"):
        assert task.instruction == "What?"
        assert task.answer("informative") == "on its face"
        assert task.answer("precise") == "whiskers"
    assert all(request.images for request in session.asked)


def test_no_new_answer_sees_the_other(tmp_path: Path) -> None:
    session = FakeSession(answer_anew)
    written(tmp_path, session, 1, params=ANEW)

    _, informative, precise = session.asked
    assert informative.turns[:-1] == precise.turns[:-1] == session.asked[0].turns
    assert informative.turns[-1].text == INFORMATIVE + "What?"
    assert precise.turns[-1].text == PRECISE + "What?"


def test_each_pass_has_its_own_temperature(tmp_path: Path) -> None:
    temperatures = []

    class Noting(FakeSession):
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
            temperatures.append(sampling.temperature)
            return super().generate(requests, sampling)

    written(tmp_path, Noting(answer_anew), 1, params=ANEW)

    assert temperatures == [0.7, 0.0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said(finish="length"), CUT),
        (said(""), "an instruction or answer is empty"),
        (said(finish="error", error="no memory"), FAILED),
    ],
)
def test_a_task_without_its_new_answers_goes_to_the_ledger(
    tmp_path: Path, answer: Completion, reason: str
) -> None:
    def rule(request: Request) -> Completion:
        is_first = request.turns[1].text == "Caption 0."
        return answer if is_first and request.opens == "assistant" else answer_anew(request)

    found, _ = written(tmp_path, FakeSession(rule), 2, params=ANEW)

    assert [row["reason"] for row in found.rows("quarantine")] == [reason]
    assert [task.meta.source_id for task in found.records("tasks")] == ["p1"]


def test_counts_tell_completions_with_text_from_tasks(tmp_path: Path) -> None:
    outputs = iter([said(*GOOD), said(*GOOD[:2]), said()])
    found, _ = written(tmp_path, FakeSession(lambda request: next(outputs)), 3)

    counts = found.manifest.counts
    assert (counts["num_pairs"], counts["generated"], counts["tasks"]) == (3, 2, 1)


def test_a_rerun_asks_only_about_unfinished_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "SHARD_PAIRS", 2)
    dying = FakeSession(lambda request: die_at("Caption 3.", request))
    with pytest.raises(InterruptedError):
        written(tmp_path, dying, 5)
    again = FakeSession(lambda request: said(*GOOD))

    found, _ = written(tmp_path, again, 5)

    assert [request.turns[1].text for request in again.asked] == [
        "Caption 2.",
        "Caption 3.",
        "Caption 4.",
    ]
    assert [task.meta.source_id for task in found.records("tasks")] == [
        "p0",
        "p1",
        "p2",
        "p3",
        "p4",
    ]


def die_at(caption: str, request: Request) -> Completion:
    if request.turns[1].text == caption:
        raise InterruptedError
    return said(*GOOD)
