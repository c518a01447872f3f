from __future__ import annotations

import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import package_data, prompts
from engine.artifacts import Artifact
from engine.diagnostics import StageError
from engine.records import ImagePart, Kind, Meta, Record, assistant, make_record, user
from engine.stages import mix
from tests.stages.running import Bench
from tests.stages.talking import a_pair, a_question, a_task, prompt_texts, rows_artifact

PARAMS: dict[str, Any] = {
    "pipeline": "single_stage",
    "parts": {"synthetic": 1.0, "captions": 1.0, "replay": 1.0},
    "order": "sequential",
    "answers": "combined",
    "joining": "template",
    "tasks_per_pair": None,
    "paper_code_compat": False,
    "caption_prompt": "caption@1",
    "combine_prompt": "combine@1",
}


def mixed(
    folder: Path,
    pairs: Sequence[Record] = (),
    tasks: Sequence[Record] = (),
    replay: Sequence[Record] = (),
    *,
    seed: int = 42,
    parts: dict[str, float] | None = None,
    **changes: Any,
) -> Artifact:
    params = PARAMS | {"parts": PARAMS["parts"] | (parts or {})}
    bench = Bench(folder / f"run-{len(list(folder.iterdir()))}", seed, prompts=prompt_texts())
    inputs = {}
    if pairs:
        inputs["pairs"] = {"p": rows_artifact(bench.folder / "pairs", pairs=pairs)}
        inputs["tasks"] = {"t": rows_artifact(bench.folder / "tasks", kept=tasks)}
    if replay:
        inputs["replay"] = {"r": rows_artifact(bench.folder / "replay", rows=replay)}
    return bench.run(mix.STAGE, params | changes, inputs)


PAIRS = [a_pair(n) for n in range(40)]
TASKS = [a_task(pair, n) for n, pair in enumerate(PAIRS) if n % 2 == 0]


def questions(record: Record) -> list[str]:
    return [turn.text for turn in record.turns if turn.role == "user"]


def answers(record: Record) -> list[str]:
    return [turn.text for turn in record.turns if turn.role == "assistant"]


def test_a_kept_pair_gives_one_chat_and_another_its_caption_alone(tmp_path: Path) -> None:
    rows = list(mixed(tmp_path, PAIRS, TASKS).records("train"))

    assert len(rows) == len(PAIRS)
    assert [len(questions(row)) for row in rows] == [2, 1] * 20
    assert [row.meta.lineage[0] for row in rows] == [pair.id for pair in PAIRS]


def test_every_chat_has_its_image_at_the_very_front(tmp_path: Path) -> None:
    for row, pair in zip(mixed(tmp_path, PAIRS, TASKS).records("train"), PAIRS, strict=True):
        assert row.images == pair.images
        assert row.turns[0].parts[0] == ImagePart(0)
        assert row.meta.kind is Kind.CHAT


def test_the_caption_turn_is_first_or_last_by_a_coin(tmp_path: Path) -> None:
    rows = list(mixed(tmp_path, PAIRS, TASKS).records("train"))[::2]

    num_first = sum(answers(row)[0].startswith("Caption") for row in rows)
    assert 4 <= num_first <= 16
    assert all(sorted(a[:7] for a in answers(row)) == ["Caption", "Reasoni"] for row in rows)


def test_one_pair_more_changes_no_other_row(tmp_path: Path) -> None:
    fewer = list(mixed(tmp_path, PAIRS[:20], TASKS[:10], order="random").records("train"))
    more = list(mixed(tmp_path, PAIRS, TASKS, order="random").records("train"))

    kept = {row.id for row in fewer}
    assert fewer == [row for row in more if row.id in kept]


def test_the_random_order_follows_the_seed(tmp_path: Path) -> None:
    def order(seed: int) -> list[str]:
        found = mixed(tmp_path, PAIRS, TASKS, order="random", seed=seed)
        return [row.meta.source_id for row in found.records("train")]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(pair.meta.source_id for pair in PAIRS)


@pytest.mark.parametrize(
    ("answer_style", "expected"),
    [("informative", "Reasoning 0."), ("precise", "result 0")],
)
def test_one_of_both_answers_may_be_trained_alone(
    tmp_path: Path, answer_style: str, expected: str
) -> None:
    found = mixed(tmp_path, PAIRS[:1], TASKS[:1], answers=answer_style, parts={"captions": 0.0})

    assert [answers(row) for row in found.records("train")] == [[expected]]


def test_a_combined_answer_ends_in_the_precise_one(tmp_path: Path) -> None:
    for row in mixed(tmp_path, PAIRS, TASKS, parts={"captions": 0.0}).records("train"):
        (answer,) = answers(row)
        assert answer.startswith("Reasoning ")
        assert answer.endswith(f" result {answer.split()[1].rstrip('.')}.")


def test_parts_above_one_repeat_and_below_one_choose(tmp_path: Path) -> None:
    found = mixed(tmp_path, PAIRS, TASKS, parts={"captions": 2.0, "synthetic": 0.5})

    counts = found.manifest.counts
    assert counts["part: captions"] == 80
    assert 4 <= counts["part: synthetic"] <= 16
    assert counts["train"] == 80


def test_a_weight_of_two_and_a_half_gives_two_or_three(tmp_path: Path) -> None:
    found = mixed(tmp_path, PAIRS, parts={"captions": 2.5})

    repeats = [
        sum(row.meta.lineage[0] == pair.id for row in found.records("train")) for pair in PAIRS
    ]
    assert set(repeats) == {2, 3}
    assert 90 <= sum(repeats) <= 110


def test_repeated_captions_are_asked_for_in_other_words(tmp_path: Path) -> None:
    found = mixed(tmp_path, PAIRS[:1], parts={"captions": 20.0})

    assert len({questions(row)[0] for row in found.records("train")}) > 5


def test_two_stages_part_captions_from_instructions(tmp_path: Path) -> None:
    replay = [chat("r0")]
    found = mixed(tmp_path, PAIRS, TASKS, replay, pipeline="two_stage")

    assert all(answers(row)[0].startswith("Caption") for row in found.records("captions"))
    assert found.num_rows("captions") == 40
    assert found.num_rows("instructions") == len(TASKS) + 1
    assert all(row.images for row in found.records("captions"))
    assert all(row.images for row in list(found.records("instructions"))[:-1])


def chat(name: str) -> Record:
    turns = (user(ImagePart(0), "Hi"), assistant("Ho"), user("And?"), assistant("So."))
    return make_record(("r" * 64,), turns, Meta(Kind.CHAT, name))


def test_replay_chats_pass_through_and_others_become_chats(tmp_path: Path) -> None:
    asked = a_question("q" * 64, "What?", "a cat", "a tabby", name="r2")
    found = mixed(tmp_path, replay=[chat("r0"), a_pair(7), asked])

    first, second, third = found.records("train")
    assert first == chat("r0")
    assert (answers(second), second.images) == (["Caption 7."], a_pair(7).images)
    assert (questions(third), answers(third)) == (["What?"], ["a cat"])
    assert found.manifest.counts["part: replay"] == 3


def test_replay_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="replay rows must be chats, pairs or questions"):
        mixed(tmp_path, replay=[TASKS[0]])


def test_a_task_of_an_unknown_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="1 tasks belong to pairs that are not in the mix"):
        mixed(tmp_path, PAIRS[:1], [a_task(PAIRS[5])])


def test_two_equal_pairs_share_their_task_but_count_it_once(tmp_path: Path) -> None:
    found = mixed(tmp_path, [PAIRS[0], PAIRS[0]], [TASKS[0], TASKS[0]])

    assert found.manifest.counts["part: synthetic"] == 1
    assert found.manifest.counts["part: captions"] == 2


@pytest.mark.parametrize(
    ("changes", "row_set"),
    [
        ({"parts": {"captions": 0.0}}, "train"),
        ({"pipeline": "two_stage"}, "instructions"),
    ],
)
def test_an_empty_mix_is_refused(tmp_path: Path, changes: dict[str, Any], row_set: str) -> None:
    with pytest.raises(StageError, match=f"no rows in `{row_set}`: nothing to train on"):
        mixed(tmp_path, PAIRS, **changes)


def joined(folder: Path, informative: str, precise: str, **changes: Any) -> str:
    turns = (
        PAIRS[0].turns[0],
        assistant(informative, style="informative"),
        assistant(precise, style="precise"),
    )
    task = make_record(PAIRS[0].images, turns, TASKS[0].meta)
    (row,) = mixed(folder, PAIRS[:1], [task], parts={"captions": 0.0}, **changes).records("train")
    return answers(row)[0]


@pytest.mark.parametrize(
    ("informative", "precise", "expected"),
    [
        ("It has corners. Therefore it is a square.", "A square", "informative alone"),
        ("Therefore it has corners. It is a square.", "So a square.", "one after the other"),
        ("It has corners.", "A square", "template"),
    ],
)
def test_answers_may_be_joined_as_the_papers_code_does(
    tmp_path: Path, informative: str, precise: str, expected: str
) -> None:
    text = joined(tmp_path, informative, precise, joining="markers")

    texts = {"informative alone": informative, "one after the other": f"{informative} {precise}"}
    if expected in texts:
        assert text == texts[expected]
    else:
        assert text.startswith(informative)
        assert text not in texts.values()


COMBINE = [
    (package_data.folder("prompt_templates") / f"combine/{version}.j2").read_text("utf-8")
    for version in ("v2", "v3")
]


@given(
    st.sampled_from(COMBINE),
    st.text("abc .!?,", min_size=3, max_size=60),
    st.text("abc .", min_size=1, max_size=20),
    st.integers(0, 2**32),
)
def test_a_joined_answer_goes_forward_and_never_asks(
    combine: str, informative: str, precise: str, variant: int
) -> None:
    hypothesis.assume(informative.strip(" .!?,") and precise.strip(" ."))
    text = prompts.render(
        combine, instruction="What?", informative=informative, precise=precise, variant=variant
    )
    reasoning, conclusion = informative.strip(), precise.strip().rstrip(". ")

    assert text.startswith(reasoning)
    assert text[len(reasoning) :].rstrip(". ").endswith(conclusion) or text.rstrip(".") == (
        reasoning.rstrip(".")
    )
    assert "What?" not in text


@pytest.mark.parametrize("combine", COMBINE)
def test_both_versions_of_the_template_have_many_wordings(combine: str) -> None:
    def wordings(precise: str) -> set[str]:
        return {
            prompts.render(
                combine, instruction="Q", informative="It is.", precise=precise, variant=number
            )
            for number in range(200)
        }

    assert len(wordings("a cat")) >= 24
    assert len(wordings("a cat that sits on the mat today")) >= 12


def test_a_chat_tells_how_the_answers_of_its_task_were_joined(tmp_path: Path) -> None:
    first, second = list(mixed(tmp_path, PAIRS[:2], TASKS[:1]).records("train"))

    (how,) = first.meta.extra["joined"].values()
    assert list(first.meta.extra["joined"]) == [TASKS[0].id]
    assert re.fullmatch(r"combine@1, variant \d+", how)
    assert "joined" not in second.meta.extra


def noted(task: Record, **notes: Any) -> Record:
    return replace(task, meta=replace(task.meta, extra=notes))


def test_the_surest_tasks_of_a_pair_enter_in_their_order(tmp_path: Path) -> None:
    (pair,) = PAIRS[:1]
    scores = (0.6, 0.9, 0.7, 0.9)
    tasks = [
        noted(a_task(pair, n), consistency={"label": "yes", "score": score})
        for n, score in enumerate(scores)
    ]
    (row,) = mixed(tmp_path, [pair], tasks, parts={"captions": 0.0}, tasks_per_pair=2).records(
        "train"
    )

    assert questions(row) == ["Question 1?", "Question 3?"]


def test_tasks_that_weigh_less_enter_more_seldom(tmp_path: Path) -> None:
    light = [noted(task, needs_image={"guess": "x", "weight": 0.25}) for task in TASKS]
    found = mixed(tmp_path, PAIRS, light)

    assert 1 <= found.manifest.counts["part: synthetic"] <= 11  # of 20; about 5


def test_a_pair_without_a_task_keeps_its_caption_unless_the_papers_code_is_followed(
    tmp_path: Path,
) -> None:
    unparsed = [{"pair": PAIRS[1].id, "source_id": "p1"}]
    bench = Bench(tmp_path, prompts=prompt_texts())
    inputs = {
        "pairs": {"p": rows_artifact(tmp_path / "pairs", pairs=PAIRS[:3])},
        "tasks": {"t": rows_artifact(tmp_path / "tasks", kept=TASKS[:1])},
        "unparsed": {"u": rows_artifact(tmp_path / "unparsed", unparsed=unparsed)},
    }
    rows = list(bench.run(mix.STAGE, PARAMS | {"paper_code_compat": True}, inputs).records("train"))

    assert [row.meta.lineage[0] for row in rows] == [PAIRS[0].id, PAIRS[2].id]


def test_repeats_and_shuffled_rows_are_those_of_the_plain_order(tmp_path: Path) -> None:
    parts = {"captions": 2.5, "synthetic": 1.5}
    pairs, replay = [*PAIRS, *PAIRS[:3]], [a_question("d" * 64, "Why?", "So.")] * 3
    plain, shuffled = (
        [
            line
            for path in mixed(tmp_path, pairs, TASKS, replay, parts=parts, order=order).shards(
                "train"
            )
            for line in path.read_text("utf-8").splitlines()
        ]
        for order in ("sequential", "random")
    )

    assert sorted(plain) == sorted(shuffled)
    assert plain != shuffled
    assert len(plain) > len(set(plain))


@pytest.mark.parametrize("order", ["sequential", "random"])
def test_a_pair_takes_a_few_hundred_bytes_of_memory(tmp_path: Path, order: str) -> None:
    def peak(num_pairs: int) -> int:
        pairs = [a_pair(number) for number in range(num_pairs)]
        tasks = [a_task(pair, number) for number, pair in enumerate(pairs)]
        folder = tmp_path / str(num_pairs)
        inputs = {
            "pairs": {"p": rows_artifact(folder / "pairs", pairs=pairs)},
            "tasks": {"t": rows_artifact(folder / "tasks", kept=tasks)},
        }
        del pairs, tasks
        bench = Bench(folder, prompts=prompt_texts())
        tracemalloc.start()
        try:
            bench.run(mix.STAGE, PARAMS | {"order": order}, inputs)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1_500) - peak(500) < 1_000 * 600
