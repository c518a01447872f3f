from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.diagnostics import StageError
from engine.records import Kind
from engine.sources import Problem, Row
from tests.sources.building import fingerprint, num_rows, picture, read

TASKS, CAPTIONS, ANSWERS = "metadata.json", "captions.json", "instruct.json"
FOLDER = "allava_vflan/images/images_191task_1k/"


def talk(image: str, *texts: str, task: str | None = None) -> dict[str, Any]:
    roles = ("human", "gpt") * (len(texts) // 2)
    turns = [{"from": role, "value": text} for role, text in zip(roles, texts, strict=True)]
    row: dict[str, Any] = {"id": image, "image": image, "conversations": turns}
    return row | ({"task_name": task} if task else {})


def captioned(image: str) -> dict[str, Any]:
    return talk(FOLDER + image, "<image>\nDescribe it.", f"What {image} shows.")


def write(
    folder: Path,
    tasks: list[Any],
    captions: list[Any],
    answers: list[Any],
    *,
    is_zip: bool = False,
) -> dict[str, str]:
    """Write the three files and five pictures; return the settings of the source."""
    for name, rows in ((TASKS, tasks), (CAPTIONS, captions), (ANSWERS, answers)):
        (folder / name).write_text(json.dumps(rows))
    if is_zip:
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for number in range(5):
                archive.writestr(f"images_191task_1k/{number}.png", picture(number))
    else:
        (folder / "images").mkdir()
        for number in range(5):
            (folder / "images" / f"{number}.png").write_bytes(picture(number))
    images = "images.zip" if is_zip else "images"
    return {"tasks": TASKS, "captions": CAPTIONS, "answers": ANSWERS, "images": images}


def row_of(item: Row | Problem) -> Row:
    assert isinstance(item, Row), item
    return item


@pytest.mark.parametrize("is_zip", [False, True], ids=["folder", "zip"])
def test_a_row_has_the_answers_of_both_sets(tmp_path: Path, is_zip: bool) -> None:
    settings = write(
        tmp_path,
        [talk("0.png", "<image>\nWhich colour?", "red", task="PACS+colour")],
        [captioned("0.png"), talk(FOLDER + "0.png", "<image>\nAgain.", "A second caption.")],
        [talk(FOLDER + "0.png", "Which colour?\n<image>", "It is a deep red.")],
        is_zip=is_zip,
    )

    (row,) = map(row_of, read("vision_flan", tmp_path, **settings))

    assert (row.kind, row.source_id, row.images) == (Kind.SEED, "0.png", (picture(0),))
    assert [(turn.text, turn.style) for turn in row.turns[1:]] == [
        ("What 0.png shows.", None),
        ("Which colour?", None),
        ("It is a deep red.", "informative"),
        ("red", "precise"),
    ]
    assert row.extra == {"tasks": ["PACS+colour"]}


def test_a_picture_of_several_tasks_is_one_row(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        [
            talk("0.png", "<image>\nColour?", "red", "Shape?", "disc", task="a"),
            talk("0.png", "<image>\nSize?", "large", task="b"),
        ],
        [captioned("0.png")],
        [
            talk("0.png", "<image>\nSize?", "It is large."),
            talk("0.png", "<image>\nColour?", "It is red."),
            talk("0.png", "<image>\nAnother question?", "Nobody asked."),
        ],
    )

    (row,) = map(row_of, read("vision_flan", tmp_path, **settings))

    asked = [turn.text for turn in row.turns[2:]]
    assert asked == ["Colour?", "It is red.", "red", "Size?", "It is large.", "large"]
    assert row.extra == {"tasks": ["a", "b"]}


def test_what_lacks_a_part_is_told(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        [
            *(talk(f"{n}.png", "<image>\nWhat?", "red", task="t") for n in (0, 1, 2, 7)),
            {"image": "3.png", "conversations": "none"},
            {"conversations": []},
        ],
        [captioned("0.png"), captioned("1.png"), captioned("3.png"), captioned("7.png")],
        [talk(f"{n}.png", "<image>\nWhat?", "It is red.") for n in (0, 2, 3, 7)],
    )

    found = read("vision_flan", tmp_path, **settings)

    assert row_of(found[0]).source_id == "0.png"
    told = [(one.source_id, one.reason) for one in found[1:] if isinstance(one, Problem)]
    assert told == [
        ("1.png", "no informative answer"),
        ("2.png", "no caption"),
        ("7.png", "image file not found"),
        (f"{TASKS} row 5", "no conversations"),
        (f"{TASKS} row 6", "no image"),
    ]
    assert num_rows("vision_flan", tmp_path, **settings) == 6
    assert read("vision_flan", tmp_path, range(2, 4), **settings) == found[2:4]


def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    settings = write(tmp_path, [talk("0.png", "a", "b")], [captioned("0.png")], [])
    (tmp_path / CAPTIONS).write_text((tmp_path / CAPTIONS).read_text()[:-20])

    with pytest.raises(StageError, match=r"`captions.json` is cut off or damaged after 0 rows"):
        read("vision_flan", tmp_path, **settings)


def test_its_key_depends_on_every_file(tmp_path: Path) -> None:
    settings = write(tmp_path, [talk("0.png", "a", "b")], [captioned("0.png")], [])
    seen = [fingerprint("vision_flan", tmp_path, **settings)]
    for name in (TASKS, CAPTIONS, ANSWERS, "images/0.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b" ")
        seen.append(fingerprint("vision_flan", tmp_path, **settings))

    assert len({json.dumps(one) for one in seen}) == 5
    with pytest.raises(FileNotFoundError, match=r"the file `there.json` does not exist"):
        fingerprint("vision_flan", tmp_path, **{**settings, "answers": "there.json"})
