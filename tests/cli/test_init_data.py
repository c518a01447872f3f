"""`adapt init --data`: what is proposed for each shape that image-text data comes in is right."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.recipe.source import read
from tests.sources.building import picture

WORDS = ("A brown bear that eats fish", "Two boats in the harbour", "The red roof of a house")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(folder: Path, count: int, *, side_px: int = 64, prefix: str = "") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{prefix}{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number, side_px=side_px))
    return names


def with_sidecars(folder: Path, count: int, caption: str = WORDS[0], **how: Any) -> None:
    for name in pictures(folder, count, **how):
        (folder / name).with_suffix(".txt").write_text(f"{caption} {name}\n")


def init(path: str, *words: str) -> dict[str, Any]:
    """Run `adapt init mine --data PATH`; return the recipe, which must be valid and plannable."""
    assert main(["init", "mine", "--data", path, *words]) == 0
    assert main(["validate", "mine.yaml"]) == 0
    assert main(["plan", "mine.yaml", "--store", "store"]) == 0
    found: dict[str, Any] = read(Path("mine.yaml").read_text("utf-8"), "").plain()
    return found


def collected(recipe: dict[str, Any]) -> list[Any]:
    """Read the source as a run would."""
    from tests.sources import building

    settings = {key: value for key, value in recipe["source"].items() if key != "use"}
    return building.read(recipe["source"]["use"], Path.cwd(), **settings)


def captions(recipe: dict[str, Any]) -> list[str]:
    return [row.turns[1].text for row in collected(recipe)]


def test_a_folder_with_a_text_beside_each_picture(folder: Path):
    with_sidecars(folder / "data", 30)

    recipe = init("data")
    assert recipe["source"] == {"use": "image_folder", "path": "data", "licence": None}
    assert recipe["name"] == "mine"
    assert recipe["filters"]["pairs"] == [
        {"use": "image_size", "min_side_px": 56},
        {"use": "caption_length", "min_words": 3},
        {"use": "near_duplicate", "max_distance_bits": 4},
    ]
    assert recipe["benchmarks"]["domain"] == ["holdout"]
    assert recipe["benchmarks"]["holdout"] == {"share": 0.2, "max_items": 500}


def test_a_folder_with_metadata(folder: Path):
    names = pictures(folder / "data", 3)
    rows = [{"file_name": n, "text": w} for n, w in zip(names, WORDS, strict=True)]
    (folder / "data" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))

    recipe = init("data")
    assert recipe["source"]["use"] == "image_folder"
    assert captions(recipe) == list(WORDS)


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_a_csv_whose_columns_have_other_names(folder: Path):
    names = pictures(folder, 3)
    rows = [[n, w, "7"] for n, w in zip(names, WORDS, strict=True)]
    write_csv(folder / "pairs.csv", ["img", "Text", "label"], rows)

    recipe = init("pairs.csv")
    assert recipe["source"]["columns"] == {"image": "img", "caption": "Text"}
    assert captions(recipe) == list(WORDS)


def test_pictures_in_a_folder_beside_the_table_are_found(folder: Path):
    names = pictures(folder / "data" / "images", 3)
    rows = [[n, w] for n, w in zip(names, WORDS, strict=True)]
    write_csv(folder / "data" / "pairs.csv", ["image_path", "caption"], rows)

    recipe = init("data")
    assert recipe["source"] == {
        "use": "csv_file",
        "path": "data/pairs.csv",
        "columns": {"image": "image_path"},
        "image_root": "data/images",
        "licence": None,
    }
    assert captions(recipe) == list(WORDS)


def test_llava_conversations_of_one_exchange(folder: Path):
    rows = [
        {
            "id": f"{number}",
            "image": name,
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe it."},
                {"from": "gpt", "value": WORDS[number]},
            ],
        }
        for number, name in enumerate(pictures(folder, 3))
    ]
    (folder / "llava.json").write_text(json.dumps(rows))

    recipe = init("llava.json")
    assert recipe["source"] == {"use": "json_file", "path": "llava.json", "licence": None}
    assert captions(recipe) == list(WORDS)


def parquet(path: Path, **columns: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def embedded(count: int) -> list[dict[str, Any]]:
    return [{"bytes": picture(number), "path": f"{number}.png"} for number in range(count)]


def test_a_parquet_file_with_pictures_inside(folder: Path):
    parquet(folder / "pairs.parquet", image=embedded(3), sentence=list(WORDS), n=[1, 2, 3])

    recipe = init("pairs.parquet")
    assert recipe["source"]["columns"] == {"caption": "sentence"}
    assert captions(recipe) == list(WORDS)


def test_of_a_repository_with_splits_the_training_split_is_proposed(folder: Path):
    for split in ("test", "train"):
        path = folder / "repo" / "data" / f"{split}-00000-of-00001.parquet"
        parquet(path, image=embedded(3), caption=[f"{split} {word}" for word in WORDS])

    recipe = init("repo")
    assert recipe["source"] == {
        "use": "hub",
        "dataset": "./repo",
        "split": "train",
        "licence": None,
    }
    text = Path("mine.yaml").read_text()
    assert "DECIDE: the split; there are `test`, `train`" in text


def test_webdataset_shards(folder: Path):
    (folder / "shards").mkdir()
    for number, words in enumerate(WORDS):
        with tarfile.open(folder / "shards" / f"{number}.tar", "w") as shard:
            for name, content in (("png", picture(number)), ("txt", words.encode())):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))

    recipe = init("shards")
    assert recipe["source"] == {"use": "webdataset", "path": "shards", "licence": None}
    assert captions(recipe) == list(WORDS)


def test_thresholds_fit_small_pictures_and_short_captions(folder: Path):
    with_sidecars(folder / "data", 40, caption="", side_px=30)

    recipe = init("data")
    size, length, _ = recipe["filters"]["pairs"]
    assert size == {"use": "image_size", "min_side_px": 24}
    assert length == {"use": "caption_length", "min_words": 2}  # "7.png" is two words
    text = Path("mine.yaml").read_text()
    assert "24 px, for 40 of 40 are below 56" in text


def test_pictures_that_share_their_layout_are_compared_by_pixels(folder: Path):
    data = folder / "data"
    with_sidecars(data, 20)
    for path in data.glob("*.png"):  # one picture, a pixel apart: their hashes are equal
        from PIL import Image

        shade = Image.open(data / "0.png").convert("RGB")
        shade.putpixel((0, 0), (int(path.stem), 0, 0))
        shade.save(path)

    near = init("data")["filters"]["pairs"][2]
    assert near == {"use": "near_duplicate", "max_distance_bits": 0}


def test_filters_of_tasks_and_the_models_are_those_of_the_recipe_begun_from(folder: Path):
    with_sidecars(folder / "data", 5)

    recipe = init("data", "--from", "biomed")
    assert recipe["extends"] == "base/qwen2_vl_2b.yaml"
    assert recipe["generator"]["model"] == "AdaptLLM/visual-instruction-synthesizer"
    assert [item["use"] for item in recipe["filters"]["tasks"]] == ["consistency"]
    assert recipe["filters"]["pairs"][3] == {"use": "decontaminate", "max_distance_bits": 4}


def test_what_a_person_must_decide_is_asked(folder: Path):
    with_sidecars(folder / "data", 5)
    init("data")

    questions = [line for line in Path("mine.yaml").read_text().splitlines() if "DECIDE:" in line]
    asked = " ".join(questions)
    for subject in ("one sentence", "CC-BY", "replay", "base MLLM", "held-out share"):
        assert subject in asked


def test_captions_in_another_language_raise_a_question(folder: Path):
    with_sidecars(folder / "data", 5, caption="Ein Hund sitzt neben der roten Tonne und schaut")
    init("data")

    assert "few captions look English" in Path("mine.yaml").read_text()


def test_two_columns_of_text_raise_a_question(folder: Path):
    names = pictures(folder, 3)
    write_csv(
        folder / "p.csv", ["image", "text", "title"], [[n, WORDS[0], "A bear"] for n in names]
    )
    init("p.csv")

    assert "which column is the caption? These are texts: `text`, `title`" in (
        Path("mine.yaml").read_text()
    )


def test_data_with_odd_names_and_captions_still_makes_a_recipe(folder: Path):
    strange = "odd: {name} #1 'quoted'"
    names = pictures(folder / strange, 3)
    rows = [[name, f'"{WORDS[0]}\x07\u2028: # {{'] for name in names]
    write_csv(folder / strange / "p.csv", ["image", "cap: \ntion # 'x'"], rows)

    recipe = init(strange)
    assert recipe["source"]["path"] == f"{strange}/p.csv"
    assert recipe["source"]["columns"] == {"caption": "cap: \ntion # 'x'"}


def test_a_table_that_names_files_is_read_with_the_folder_that_holds_them(folder: Path):
    names = pictures(folder / "data", 3)
    rows = [[name, words] for name, words in zip(names, WORDS, strict=True)]
    write_csv(folder / "data" / "captions.csv", ["file_name", "caption"], rows)

    assert init("data/captions.csv")["source"]["use"] == "image_folder"


def test_a_captions_table_with_other_columns_is_read_as_a_table(folder: Path):
    names = pictures(folder / "data", 3)
    rows = [[name, words] for name, words in zip(names, WORDS, strict=True)]
    write_csv(folder / "data" / "captions.csv", ["filename", "description"], rows)

    recipe = init("data")
    assert recipe["source"]["columns"] == {"image": "filename", "caption": "description"}
    assert captions(recipe) == list(WORDS)


def test_of_several_tables_the_largest_is_read_and_the_others_are_named(folder: Path):
    names = pictures(folder / "data", 3)
    rows = [[name, words] for name, words in zip(names, WORDS, strict=True)]
    write_csv(folder / "data" / "all.csv", ["image", "caption"], rows)
    write_csv(folder / "data" / "few.csv", ["image", "caption"], rows[:1])

    assert init("data")["source"]["path"] == "data/all.csv"
    assert "not read   few.csv" in Path("mine.yaml").read_text()


def test_json_says_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]):
    with_sidecars(folder / "data", 4)
    (folder / "data" / "extra.png").write_bytes(picture(99))

    assert main(["init", "mine", "--data", "data", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["found"]["num_rows"] == 5
    assert said["found"]["problems"] == {"no caption": 1}
    assert said["found"]["short_side_px"] == [64, 64, 64]


def test_at_most_a_sample_is_read(folder: Path, capsys: pytest.CaptureFixture[str]):
    with_sidecars(folder / "data", 230, side_px=8)

    assert main(["init", "mine", "--data", "data"]) == 0
    assert "200 of 230 looked at, 200 are pairs" in capsys.readouterr().out


def no_captions(folder: Path) -> None:
    pictures(folder / "data", 2)


def chats(folder: Path) -> None:
    (name,) = pictures(folder / "data", 1)
    turns = [
        {"from": who, "value": "<image> a"[8 * at :]} for at, who in enumerate(("human", "gpt"))
    ]
    more = [{"from": who, "value": "b"} for who in ("human", "gpt")]
    rows = [{"image": name, "conversations": turns + more}]
    (folder / "data" / "c.json").write_text(json.dumps(rows))


def nothing(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "notes.doc").write_text("x")


def damaged(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "a.parquet").write_bytes(b"PAR1 cut")


def no_images(folder: Path) -> None:
    (folder / "data").mkdir()
    write_csv(folder / "data" / "a.csv", ["caption", "n"], [[WORDS[0], "1"]])


def lost_pictures(folder: Path) -> None:
    (folder / "data").mkdir()
    write_csv(folder / "data" / "a.csv", ["image", "caption"], [["x/1.png", WORDS[0]]])


def a_dictionary(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "a.json").write_text('{"images": [], "annotations": []}')


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_captions, "has 2 pictures and no caption"),
        (chats, "more than one exchange (1)"),
        (nothing, "has no pictures and no table (files: 1 .doc)"),
        (damaged, "a.parquet` cannot be read"),
        (no_images, "`a.csv` has no column of pictures"),
        (lost_pictures, "image file not found (1)"),
        (a_dictionary, "it is not a list of rows, but has the keys `images`, `annotations`"),
        (lambda folder: None, "there is no file or folder"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(
    make: Any, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    make(folder)

    assert main(["init", "mine", "--data", "data"]) == 1
    assert said in capsys.readouterr().err
    assert not {"mine.yaml", "adapt.schema.json"} & {path.name for path in folder.iterdir()}


def answer(folder: Path, *answers: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine.cli", "init", "mine", "--interactive"]
    given = "".join(f"{line}\n" for line in answers)
    return subprocess.run(
        command, cwd=folder, input=given, capture_output=True, text=True, check=False
    )


def test_interactive_asks_with_defaults_in_brackets(folder: Path):
    names = pictures(folder, 3)
    rows = [[n, w, "Bear"] for n, w in zip(names, WORDS, strict=True)]
    write_csv(folder / "p.csv", ["image", "text", "title"], rows)
    done = answer(folder, "", "p.csv", "title", "", "", "pocket/base")

    assert done.returncode == 0, done.stderr
    assert "name of the domain [mine]: " in done.stderr
    assert "caption column (text, title) [text]: " in done.stderr
    recipe = read((folder / "mine.yaml").read_text("utf-8"), "").plain()
    assert recipe["source"]["columns"] == {"caption": "title"}
    assert recipe["base"]["model"] == "pocket/base"


def test_interactive_without_data_copies_a_recipe(folder: Path):
    done = answer(folder, "cells", "", "")

    assert done.returncode == 0, done.stderr
    assert "name: cells\n" in (folder / "cells.yaml").read_text("utf-8")


def test_an_input_that_ends_early_writes_nothing(folder: Path):
    done = answer(folder, "mine")

    assert done.returncode == 1
    assert "error[no-answer]: the input ended at the question `file or folder" in done.stderr
    assert list(folder.iterdir()) == []


def test_init_without_data_imports_nothing_heavy(folder: Path):
    code = (
        "import sys; from engine.cli import main; main(['init', 'x']);"
        "print(' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert {"PIL", "pyarrow", "numpy", "imagehash", "jsonschema_rs"} & set(
        done.stderr.split()
    ) == set()
