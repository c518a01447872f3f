from __future__ import annotations

from pathlib import Path

from engine.forecast import sources
from engine.plan.estimate import Figure


def test_lines_of_a_small_file_are_counted(tmp_path: Path):
    (tmp_path / "pairs.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}')
    count = sources.counter(tmp_path)

    assert count({"use": "json_file", "path": "pairs.jsonl"}) == Figure(
        3, "counted: lines of pairs.jsonl"
    )


def test_the_header_of_a_table_is_no_row(tmp_path: Path):
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,x\nb.png,y\n")

    found = sources.counter(tmp_path)({"use": "csv", "path": "pairs.csv"})
    assert found == Figure(2, "counted: lines of pairs.csv")


def test_a_large_file_is_scaled_from_its_first_part(tmp_path: Path):
    line = "x" * 99 + "\n"
    (tmp_path / "big.jsonl").write_text(line * 100_000)

    found = sources.counter(tmp_path)({"use": "json_file", "path": "big.jsonl"})
    assert found == Figure(100_000, "assumed from the first 4 MB of big.jsonl")


def test_pictures_of_a_folder_are_counted(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/b.JPG", "note.txt"):
        (tmp_path / name).touch()

    found = sources.counter(tmp_path)({"use": "image_folder", "path": "."})
    assert found == Figure(2, "counted: pictures in the folder")


def test_what_cannot_be_counted_cheaply_is_unknown(tmp_path: Path):
    (tmp_path / "x.parquet").touch()
    count = sources.counter(tmp_path)

    assert count({"use": "parquet", "path": "x.parquet"}) is None
    assert count({"use": "hub", "dataset": "who/knows"}) is None
    assert count({"use": "json_file", "path": "missing.jsonl"}) is None
