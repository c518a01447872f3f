from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact, Outputs
from engine.diagnostics import StageError
from engine.images import ImageWriter
from engine.plan.stage import Part
from engine.records import ImagePart, Kind, Meta, Record, assistant, make_record, user
from engine.stages import seeds
from tests.filters.building import artifact as questions
from tests.filters.building import published
from tests.sources.building import picture
from tests.stages.running import Bench

ALL_TASKS = ("VQARAD+question_answer", "PACS+photo", "LOGO+name")


def seed(number: int, image: str, task: str | None) -> Record:
    turns = (
        user(ImagePart(0)),
        assistant(f"Caption {number}."),
        user("What?"),
        assistant("It is this.", style="informative"),
        assistant("this", style="precise"),
    )
    extra = {"tasks": [task]} if task else {}
    return make_record([image], turns, Meta(Kind.SEED, f"seed {number}", extra=extra))


def collected(folder: Path, rows: Iterable[tuple[int, int, str | None]]) -> Artifact:
    """Return seed rows of number, shade of their picture, and task."""
    outputs = Outputs(folder)
    folder.mkdir()
    with ImageWriter(folder) as bank:
        for number, shade, task in rows:
            outputs.rows("rows").write(seed(number, bank.add(picture(shade)), task))
    return published(outputs)


def asked(
    found: Artifact, benchmarks: Mapping[str, Artifact] | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    params = {"exclude_tasks": [], "filters": [], "held_out_share": 0.1, **changes}
    inputs = {"seed_tasks": {"s": found}, "images": {"s": found}, "benchmarks": benchmarks or {}}
    return params, inputs


def run(folder: Path, *args: Any, **changes: Any) -> Artifact:
    return Bench(folder).run(seeds.STAGE, *asked(*args, **changes))


def sources(found: Artifact, name: str) -> list[str]:
    return [record.meta.source_id for record in found.records(name)]


def test_a_task_of_a_benchmark_goes_with_all_its_rows(tmp_path: Path) -> None:
    rows = collected(tmp_path / "in", [(n, n, ALL_TASKS[n % 3]) for n in range(30)])

    found = run(tmp_path, rows, exclude_tasks=ALL_TASKS[:1])

    left = [*found.records("rows"), *found.records("held_out")]
    assert {record.meta.extra["tasks"][0] for record in left} == set(ALL_TASKS[1:])
    ledger = list(found.rows("quarantine"))
    assert len(ledger) == 10
    assert (ledger[0]["reason"], ledger[0]["detail"]) == ("task of a benchmark", ALL_TASKS[0])


def test_the_same_share_of_each_task_is_held_out(tmp_path: Path) -> None:
    sizes = {"a": 40, "b": 20, None: 10}
    tasks = [task for task, size in sizes.items() for _ in range(size)]
    rows = collected(tmp_path / "in", [(n, n, task) for n, task in enumerate(tasks)])

    found = run(tmp_path, rows)
    less = run(tmp_path / "less", rows, exclude_tasks=["b"])

    held_out = Counter(str(*r.meta.extra.get("tasks", [None])) for r in found.records("held_out"))
    assert held_out == {"a": 4, "b": 2, "None": 1}
    assert set(sources(found, "held_out")).isdisjoint(sources(found, "rows"))
    assert set(sources(less, "held_out")) < set(sources(found, "held_out"))


def test_all_rows_of_a_picture_are_on_one_side(tmp_path: Path) -> None:
    rows = collected(tmp_path / "in", [(n, n % 5, "a") for n in range(20)])

    found = run(tmp_path, rows, held_out_share=0.4)

    pictures = [{r.images[0] for r in found.records(name)} for name in ("rows", "held_out")]
    assert [len(one) for one in pictures] == [3, 2]
    assert pictures[0].isdisjoint(pictures[1])


def test_a_picture_of_a_benchmark_goes_and_parts_agree(tmp_path: Path) -> None:
    rows = collected(tmp_path / "in", [(n, n, "a") for n in range(600)])
    bench = {"slake": questions(tmp_path / "slake", [("q", picture(7), "What?")])}
    uses = [{"use": "decontaminate"}]

    place, given = Bench(tmp_path), asked(rows, bench, filters=uses)
    for index in range(2):
        place.run_part(seeds.STAGE, *given, part=Part(index, 2), scratch="shared")
    found = place.run(seeds.STAGE, *given, scratch="shared")
    alone = place.run(seeds.STAGE, *given)

    (dropped,) = found.rows("quarantine")
    assert dropped["source_id"] == "seed 7"
    assert dropped["reason"] == "decontaminate: in benchmark slake"
    for name in ("rows", "held_out"):
        assert list(found.rows(name)) == list(alone.rows(name))


def test_what_is_written_tells_nothing_of_the_domain(tmp_path: Path) -> None:
    rows = collected(tmp_path / "in", [(n, n, "a") for n in range(20)])
    bench = {"slake": questions(tmp_path / "slake", [("q", picture(999), "What?")])}

    first = run(tmp_path, rows, bench, filters=[{"use": "decontaminate"}])
    second = run(tmp_path / "other", rows, exclude_tasks=["none of these"])

    for name in ("rows", "held_out"):
        assert list(first.rows(name)) == list(second.rows(name))


def test_a_row_of_another_kind_is_no_seed(tmp_path: Path) -> None:
    mixed = questions(tmp_path / "in", [("pair", picture(1), "A caption.")])

    with pytest.raises(StageError, match="no seed task is left"):
        run(tmp_path, mixed)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    rows = collected(tmp_path / "in", [(0, 0, "a")])

    with pytest.raises(StageError, match="no seed task is left to tune the synthesizer on"):
        run(tmp_path, rows, exclude_tasks=["a"])
