from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from engine.diagnostics import StageError
from engine.records import ImagePart, Kind, TextPart
from engine.sources import Problem, Row, json_file
from tests.sources.building import captions, fingerprint, num_rows, picture, read


def write_json(folder: Path, rows: list[Any], name: str = "rows.json") -> None:
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / name).write_text(lines if name.endswith("l") else json.dumps(rows, indent=1))
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(number))


def row_of(item: Row | Problem) -> Row:
    assert isinstance(item, Row), item
    return item


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_an_image_may_be_a_path_or_a_list_of_one(tmp_path: Path, name: str) -> None:
    rows = [{"image": "0.png", "caption": "Zero."}, {"images": ["1.png"], "caption": "One."}]
    write_json(tmp_path, rows, name)

    found = read("json_file", tmp_path, path=name)

    assert [(f"{name} row 1", "Zero."), (f"{name} row 2", "One.")] == captions(found)
    assert (picture(1),) == row_of(found[1]).images
    assert found[1:] == read("json_file", tmp_path, range(1, 2), path=name)
    assert num_rows("json_file", tmp_path, path=name) == 2


def test_llava_markers_become_image_parts(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nCompare with <image>"},
        {"from": "gpt", "value": "Darker."},
    ]
    write_json(tmp_path, [{"image": ["0.png", "1.png"], "conversations": turns}])

    (row,) = map(row_of, read("json_file", tmp_path, path="rows.json", task="chat"))

    assert Kind.CHAT is row.kind
    assert (ImagePart(0), TextPart("Compare with"), ImagePart(1)) == row.turns[0].parts


def test_content_parts_are_read(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cell."},
    ]
    write_json(tmp_path, [{"images": ["2.png"], "messages": messages}])

    (row,) = map(row_of, read("json_file", tmp_path, path="rows.json", task="chat"))

    assert (ImagePart(0), TextPart("What?")) == row.turns[0].parts


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (
            {
                "image": "0.png",
                "conversations": [
                    {"from": "human", "value": "<image><image>"},
                    {"from": "gpt", "value": "x"},
                ],
            },
            "image markers do not match images",
            "2 image markers for 1 images",
        ),
        (
            {"messages": [{"role": "user", "content": "Hi"}]},
            "user and assistant do not take turns",
            "user",
        ),
        (
            {"messages": [{"role": "system", "content": "Hi"}]},
            "unknown role",
            "role 'system'",
        ),
        ({"messages": "Hi"}, "no conversations", "not a list of messages"),
    ],
)
def test_a_broken_chat_is_named_by_its_row_number(
    tmp_path: Path, row: Any, reason: str, detail: str
) -> None:
    write_json(tmp_path, [row], "rows.jsonl")

    (problem,) = read("json_file", tmp_path, path="rows.jsonl", task="chat")

    assert Problem("rows.jsonl row 1", reason, detail) == problem


def test_other_spellings_are_suggested_and_never_guessed(tmp_path: Path) -> None:
    write_json(tmp_path, [{"image": "0.png", "text": "Zero."}])

    (problem,) = read("json_file", tmp_path, path="rows.json")
    (row,) = read("json_file", tmp_path, path="rows.json", columns={"caption": "text"})

    assert isinstance(problem, Problem)
    assert problem.reason == "no caption"
    assert problem.detail == "if `text` is meant, say so: columns: {caption: text}"
    assert row_of(row).turns[1].text == "Zero."


def test_several_captions_of_a_picture_are_one(tmp_path: Path) -> None:
    captions_of_one = ["Two planes.", " A runway.", "Two planes.", None]
    write_json(
        tmp_path,
        [
            {"image": "0.png", "caption": captions_of_one},
            {"image": "1.png", "caption": []},
            {"image": "2.png", "caption": {"en": "A plane."}},
        ],
    )

    found = read("json_file", tmp_path, path="rows.json")

    assert [text for _, text in captions(found)] == [
        "Two planes. A runway.",
        "no caption",
        "caption is not a text",
    ]


def test_pictures_are_found_under_the_image_root_only(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    names = ["0.png", "../0.png", "missing.png", "https://example.org/1.png", 7]
    write_json(tmp_path, [{"image": name, "caption": "x"} for name in names])
    (tmp_path / "root" / "0.png").write_bytes(picture(9))

    found = read("json_file", tmp_path, path="rows.json", image_root="root")

    assert (picture(9),) == row_of(found[0]).images
    assert [item.reason for item in found[1:] if isinstance(item, Problem)] == [
        "image path leaves the image folder",
        "image file not found",
        "image is not a file",
        "image is not a path or bytes",
    ]


def test_a_cut_off_list_gives_what_is_whole(tmp_path: Path) -> None:
    write_json(tmp_path, [{"image": "0.png", "caption": "Zero."}] * 3)
    whole = (tmp_path / "rows.json").read_text()
    (tmp_path / "rows.json").write_text(whole[:-20])

    found = read("json_file", tmp_path, path="rows.json")

    assert [text for _, text in captions(found)] == ["Zero.", "Zero.", "not JSON"]


def test_a_bad_line_costs_one_row(tmp_path: Path) -> None:
    write_json(tmp_path, [{"image": "0.png", "caption": "Zero."}], "rows.jsonl")
    with (tmp_path / "rows.jsonl").open("a") as lines:
        lines.write('\n{"image": \n[1]\n{"image": "1.png", "caption": "One."}\n')

    found = read("json_file", tmp_path, path="rows.jsonl")

    assert [text for _, text in captions(found)] == ["Zero.", "not JSON", "not a mapping", "One."]


def test_a_json_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"image": "0.png"}')

    with pytest.raises(StageError, match=r"`rows.json` is not a list of rows"):
        read("json_file", tmp_path, path="rows.json")


def test_a_changed_picture_changes_the_fingerprint_of_its_table(tmp_path: Path) -> None:
    write_json(tmp_path, [{"image": "0.png", "caption": "Zero."}])
    before = fingerprint("json_file", tmp_path, path="rows.json")
    (tmp_path / "0.png").write_bytes(picture(5))

    assert before != fingerprint("json_file", tmp_path, path="rows.json")


def test_an_unknown_name_in_columns_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_json(tmp_path, [])

    with pytest.raises(ValueError, match="has no name `captoin`; did you mean `caption`"):
        fingerprint("json_file", tmp_path, path="rows.json", columns={"captoin": "text"})


def test_questions_carry_references_options_and_type(tmp_path: Path) -> None:
    rows = [
        {"image": "0.png", "question": "Is it?", "answer": True},
        {"image": "0.png", "question": "Which?", "answer": "B", "A": "one", "B": "two"},
        {"image": "0.png", "question": "What?", "answer": ["cell", "a cell"], "kind": "OPEN"},
        {"image": "0.png", "question": "How many?", "answer": 0},
        {"image": "0.png", "question": "Why?", "answer": None},
    ]
    write_json(tmp_path, rows)
    columns = {"answer_type": "kind"}

    found = read("json_file", tmp_path, path="rows.json", task="questions", columns=columns)

    told = [
        (r.turns[0].text, [t.text for t in r.turns[1:]], r.extra) for r in map(row_of, found[:4])
    ]
    assert told == [
        ("Is it?", ["yes"], {"answer_type": "yes_no"}),
        ("Which?", ["B"], {"answer_type": "choice", "options": ["one", "two"]}),
        ("What?", ["cell", "a cell"], {"answer_type": "open"}),
        ("How many?", ["0"], {"answer_type": "open"}),
    ]
    assert Problem("rows.json row 5", "no answer", "") == found[4]


def test_seed_tasks_have_both_styles(tmp_path: Path) -> None:
    row = {
        "image": "0.png",
        "caption": "Two cells.",
        "instruction": "How many?",
        "informative": "There are two.",
        "precise": "2",
    }
    write_json(tmp_path, [row])

    (seed,) = map(row_of, read("json_file", tmp_path, path="rows.json", task="seeds"))

    assert Kind.SEED is seed.kind
    assert [turn.style for turn in seed.turns] == [None, None, None, "informative", "precise"]


def test_csv_rows_are_pairs(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(picture())
    text = 'image,caption\n0.png,"Zero,\nand more."\n0.png,\n0.png,a,b\n'
    (tmp_path / "rows.csv").write_text(text)

    found = read("csv_file", tmp_path, path="rows.csv")

    assert captions(found) == [
        ("rows.csv row 1", "Zero,\nand more."),
        ("rows.csv row 2", "no caption"),
        ("rows.csv row 3", "row does not fit the header"),
    ]


def test_a_table_without_the_column_is_refused_with_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("img\tcaption\n0.png\tZero.\n")

    with pytest.raises(StageError) as caught:
        read("csv_file", tmp_path, path="rows.tsv")

    assert str(caught.value) == "`rows.tsv` has no column `image`; it has `img`, `caption`"
    assert caught.value.hint == "if `img` is meant, say so: columns: {image: img}"


def write_parquet(folder: Path, num: int, *, row_group_size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"image": {"bytes": picture(n), "path": None}, "caption": f"Number {n}.", "other": n}
        for n in range(num)
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "part-0.parquet", row_group_size=row_group_size)
    pq.write_table(table.slice(0, 2), folder / "part-1.parquet")


def test_parquet_is_read_in_spans_over_row_groups_and_files(tmp_path: Path) -> None:
    write_parquet(tmp_path, 7, row_group_size=3)

    whole = read("parquet", tmp_path, path=".")
    cut = [
        item
        for start in range(0, 9, 2)
        for item in read("parquet", tmp_path, range(start, min(start + 2, 9)), path=".")
    ]

    assert num_rows("parquet", tmp_path, path=".") == 9
    assert whole == cut
    assert captions(whole)[-1] == ("part-1.parquet row 2", "Number 1.")
    assert (picture(6),) == row_of(whole[6]).images


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))


def test_webdataset_members_of_one_key_are_one_row(tmp_path: Path) -> None:
    members = {
        "a/1.jpg": picture(1, image_format="JPEG"),
        "a/1.txt": b"One.",
        "a/2.png": picture(2),
        "a/2.json": b'{"caption": "Two.", "image": "2.png"}',
        "a/3.txt": b"No picture.",
    }
    write_shard(tmp_path / "shard-0.tar", members)
    (tmp_path / "shard-1.tar").write_bytes(b"not a tar file" * 100)

    found = read("webdataset", tmp_path, path=".")

    assert captions(found) == [
        ("shard-0.tar/a/1", "One."),
        ("shard-0.tar/a/2", "Two."),
        ("shard-0.tar/a/3", "no image"),
        ("shard-1.tar", "unreadable shard"),
    ]
    assert (picture(2),) == row_of(found[1]).images


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_spans_of_json_files_are_the_rows_of_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(json_file, "MARK_ROWS", 3)
    for number in range(3):
        rows: list[Any] = [{"caption": f"{number} {row}"} for row in range(number * 5)]
        write_json(tmp_path, ["no row", *rows], f"{number}-{name}")
    with (tmp_path / f"1-{name}").open("a") as file:
        file.write("[1, 2" if name == "rows.jsonl" else "")
    settings: dict[str, Any] = {"path": "."}

    whole = read("json_file", tmp_path, **settings)

    assert num_rows("json_file", tmp_path, **settings) == len(whole)
    for start in range(len(whole)):
        for stop in (start + 1, start + 4, len(whole)):
            span = range(start, min(stop, len(whole)))
            assert read("json_file", tmp_path, span, **settings) == whole[start:stop]


def test_spans_of_csv_files_are_the_rows_of_one_pass(tmp_path: Path) -> None:
    write_json(tmp_path, [])  # and three pictures
    for number in range(3):
        rows = [
            f'0.png,"line {row}\nof {number}"\n' + "\n" * (row % 2) for row in range(number * 4)
        ]
        (tmp_path / f"{number}.csv").write_text("image,caption\n" + "".join(rows) + "0.png\n")
    settings: dict[str, Any] = {"path": "."}

    whole = read("csv_file", tmp_path, **settings)

    assert num_rows("csv_file", tmp_path, **settings) == len(whole) == 15
    for start in range(len(whole)):
        for stop in (start + 1, start + 4, len(whole)):
            span = range(start, min(stop, len(whole)))
            assert read("csv_file", tmp_path, span, **settings) == whole[start:stop]
