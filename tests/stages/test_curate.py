from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact
from engine.diagnostics import StageError
from engine.filters import decontaminate
from engine.plan.stage import Part
from engine.records import Kind, Meta, Record, assistant, make_record, pair, user
from engine.stages import _filtering, curate
from engine.stages.curate import Holdout
from tests.filters.building import artifact
from tests.sources.building import picture
from tests.stages.running import Bench


def run(
    folder: Path,
    pairs: Artifact,
    *filters: Mapping[str, Any],
    benchmarks: Mapping[str, Artifact] | None = None,
    **params: Any,
) -> Artifact:
    inputs = {"pairs": {"p": pairs}, "images": {"p": pairs}, "benchmarks": benchmarks or {}}
    return Bench(folder).run(curate.STAGE, {"filters": list(filters), **params}, inputs)


def ids(found: Artifact, name: str) -> list[str]:
    return [record.meta.source_id for record in found.records(name)]


def some_pairs(folder: Path, num: int = 12) -> Artifact:
    return artifact(folder, [(f"{n}", picture(n // 2), f"Number {n}.") for n in range(num)])


def test_the_ledger_names_the_first_filter_that_drops_a_pair(tmp_path: Path) -> None:
    pairs = artifact(
        tmp_path / "pairs",
        [("a", picture(1), "one word"), ("b", picture(1), "word"), ("c", picture(1), "two words")],
    )

    found = run(
        tmp_path,
        pairs,
        {"use": "caption_length", "min_words": 2},
        {"use": "near_duplicate"},
    )

    assert ids(found, "pairs") == ["a"]
    assert list(found.rows("quarantine")) == [
        {
            "source_id": "b",
            "reason": "caption_length: caption too short",
            "detail": "1 words",
        },
        {
            "source_id": "c",
            "reason": "near_duplicate: duplicate image",
            "detail": "of a, equal pixels",
        },
    ]
    assert found.manifest.counts["quarantine: near_duplicate: duplicate image"] == 1


def test_a_benchmark_that_holds_every_pair_is_named(tmp_path: Path) -> None:
    pairs = some_pairs(tmp_path / "pairs")

    with pytest.raises(StageError) as caught:
        run(tmp_path, pairs, {"use": "decontaminate"}, benchmarks={"slake": pairs})

    expected = "no pair is left to train on; 12 pairs: 12 decontaminate: in benchmark slake"
    assert expected == str(caught.value)


def test_all_pairs_of_a_picture_fall_on_one_side(tmp_path: Path) -> None:
    pairs = some_pairs(tmp_path / "pairs", 80)

    found = run(tmp_path, pairs, holdout_share=0.3, holdout_max_items=80)

    trained = {image for record in found.records("pairs") for image in record.images}
    held_out = {image for record in found.records("holdout") for image in record.images}
    assert not trained & held_out
    assert found.num_rows("pairs") + found.num_rows("holdout") == 80
    assert 12 <= found.num_rows("holdout") <= 40


def records(num: int) -> list[Record]:
    return [pair(f"{n // 2:064x}", f"{n}", Meta(Kind.PAIR, f"{n}")) for n in range(num)]


def cut(rows: list[Record], *, share: float = 0.3, max_items: int, seed: int = 1) -> set[str]:
    holdout = Holdout(seed, share, max_items)
    trained = [given.id for row in rows for given in holdout.offer(row)]
    held_out = [row.id for row in holdout.records()]
    assert sorted(row.id for row in rows) == sorted(trained + held_out)
    return set(held_out)


def test_the_order_of_rows_moves_no_row_over_the_cut() -> None:
    rows = records(200)

    assert cut(rows, max_items=20) == cut(rows[::-1], max_items=20)
    assert cut(rows, max_items=20) <= cut(rows, max_items=500)
    assert cut(rows, max_items=500) & {row.id for row in rows[:100]} == cut(
        rows[:100], max_items=500
    )


def test_the_cut_follows_the_seed_and_its_bounds() -> None:
    rows = records(200)

    assert 20 >= len(cut(rows, max_items=20)) >= 18
    assert cut(rows, max_items=500, seed=1) != cut(rows, max_items=500, seed=2)
    assert set() == cut(rows, max_items=0)
    assert set() == cut(rows, share=0.0, max_items=500)


def test_rows_that_are_no_pairs_are_put_aside(tmp_path: Path) -> None:
    pairs = some_pairs(tmp_path / "pairs", 1)
    chat = make_record((), (user("Hi"), assistant("Hello.")), Meta(Kind.CHAT, "chat"))
    with (pairs.path / "rows-00000.jsonl").open("a") as lines:
        import json

        from engine.records import to_json

        lines.write(json.dumps(to_json(chat)) + "\n")

    found = run(tmp_path, pairs)

    assert [row["reason"] for row in found.rows("quarantine")] == [
        "not an image-caption pair but a chat"
    ]


def test_parts_look_at_all_pictures_of_pairs_and_benchmarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_filtering, "SHARD_ROWS", 4)
    monkeypatch.setattr(decontaminate, "SHARD_IMAGES", 2)
    pairs = some_pairs(tmp_path / "pairs")
    benchmark = artifact(tmp_path / "b", [(f"{n}", picture(3 * n), "x") for n in range(5)])
    inputs = {"pairs": {"p": pairs}, "images": {"p": pairs}, "benchmarks": {"b": benchmark}}
    params = {"filters": [{"use": "near_duplicate"}, {"use": "decontaminate"}]}
    bench = Bench(tmp_path)
    for index in range(2):
        bench.run_part(curate.STAGE, params, inputs, part=Part(index, 2), scratch="shared")
    expected = bench.run(curate.STAGE, params, inputs)
    for path in (*pairs.path.glob("images-*"), *benchmark.path.glob("images-*")):
        path.unlink()

    found = bench.run(curate.STAGE, params, inputs, scratch="shared")

    assert list(expected.rows("pairs")) == list(found.rows("pairs"))
    assert list(expected.rows("quarantine")) == list(found.rows("quarantine"))
    assert {row["reason"].split(":")[0] for row in found.rows("quarantine")} == {
        "near_duplicate",
        "decontaminate",
    }
