from __future__ import annotations

import io
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact
from engine.diagnostics import StageError
from engine.images import ImageBank
from engine.plan.stage import Part
from engine.stages import _intake, collect
from tests.sources.building import encoded, picture
from tests.stages.running import Bench

FOLDER = {"source": {"use": "image_folder", "path": "pictures"}}


def put(folder: Path, name: str, content: bytes, caption: str) -> None:
    path = folder / "pictures" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.with_suffix(".txt").write_text(caption)


def told(artifact: Artifact, name: str) -> list[Any]:
    if name == "rows":
        return [(r.meta.source_id, r.caption) for r in artifact.records(name)]
    return [(row["source_id"], row["reason"]) for row in artifact.rows(name)]


def test_whole_rows_are_kept_and_broken_ones_counted(tmp_path: Path) -> None:
    put(tmp_path, "1.png", picture(1), "One.")
    put(tmp_path, "2.jpg", picture(2, side_px=64, image_format="JPEG")[:-80], "Cut off.")
    put(tmp_path, "3.png", b"", "Empty.")
    put(tmp_path, "4.png", picture(1), "One.")
    put(tmp_path, "5.png", picture(1), "Another caption.")
    put(tmp_path, "6.png", b"not a picture", "Text.")

    found = Bench(tmp_path).run(collect.STAGE, FOLDER)

    assert told(found, "rows") == [("1.png", "One."), ("5.png", "Another caption.")]
    assert told(found, "quarantine") == [
        ("2.jpg", "unreadable image"),
        ("3.png", "empty file"),
        ("4.png", "duplicate row"),
        ("6.png", "unreadable image"),
    ]
    assert found.manifest.counts["quarantine: unreadable image"] == 2
    assert len(ImageBank([found.path])) == 1


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16", "CMYK"])
def test_pictures_of_every_mode_are_taken(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    image_format = "TIFF" if mode == "CMYK" else "PNG"
    put(tmp_path, "1.png", encoded(Image.new(mode, (8, 8)), image_format), "One.")

    assert Bench(tmp_path).run(collect.STAGE, FOLDER).num_rows("rows") == 1


def test_a_source_without_a_usable_row_says_why(tmp_path: Path) -> None:
    put(tmp_path, "1.png", b"", "One.")
    put(tmp_path, "2.png", b"x", "Two.")
    put(tmp_path, "3.png", b"y", "Three.")

    with pytest.raises(StageError) as caught:
        Bench(tmp_path).run(collect.STAGE, FOLDER)

    expected = (
        "no row of the source `image_folder` can be used; 3 rows: 2 unreadable image, 1 empty file"
    )
    assert expected == str(caught.value)


def test_repeated_questions_stay(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(picture())
    (tmp_path / "rows.csv").write_text("image,question,answer\n" + "0.png,Is it?,yes\n" * 2)
    source = {"use": "csv_file", "path": "rows.csv", "task": "questions"}

    assert Bench(tmp_path).run(collect.STAGE, {"source": source}).num_rows("rows") == 2


def many_pictures(folder: Path, num: int = 9) -> None:
    for number in range(num):
        content = b"broken" if number == 4 else picture(number % 5)
        put(folder, f"{number}.png", content, f"Number {number}.")


def test_spans_give_the_same_artifact_as_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_pictures(tmp_path)
    bench = Bench(tmp_path)
    whole = bench.run(collect.STAGE, FOLDER)
    monkeypatch.setattr(_intake, "SPAN_ROWS", 2)

    cut = bench.run(collect.STAGE, FOLDER)

    assert contents(whole) == contents(cut)
    assert bench.progress[-1] == (9, 9, "rows")


def test_parts_give_the_same_artifact_as_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_pictures(tmp_path)
    bench = Bench(tmp_path)
    whole = bench.run(collect.STAGE, FOLDER)
    monkeypatch.setattr(_intake, "SPAN_ROWS", 2)

    for index in (1, 0):
        bench.run_part(collect.STAGE, FOLDER, part=Part(index, 2), scratch="shared")
    for number in range(9):
        (tmp_path / f"pictures/{number}.png").write_bytes(b"gone")

    assert contents(whole) == contents(bench.run(collect.STAGE, FOLDER, scratch="shared"))


def test_finished_spans_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many_pictures(tmp_path)
    monkeypatch.setattr(_intake, "SPAN_ROWS", 3)
    bench = Bench(tmp_path)
    whole = bench.run(collect.STAGE, FOLDER, scratch="shared")
    (tmp_path / ".bench/shared/span-000002").rename(tmp_path / ".bench/shared/span-000002.0.part")
    for number in range(6):  # pictures of the first two spans, whose spans are journalled
        (tmp_path / f"pictures/{number}.png").write_bytes(b"gone")

    again = bench.run(collect.STAGE, FOLDER, scratch="shared")

    assert contents(whole) == contents(again)


@pytest.mark.parametrize("name", ["rows.jsonl", "images-00000.arrow", "span.json"])
def test_a_damaged_span_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    many_pictures(tmp_path)
    monkeypatch.setattr(_intake, "SPAN_ROWS", 5)
    bench = Bench(tmp_path)
    whole = bench.run(collect.STAGE, FOLDER, scratch="shared")
    path = tmp_path / ".bench/shared/span-000000" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert contents(whole) == contents(bench.run(collect.STAGE, FOLDER, scratch="shared"))


def test_a_span_that_finds_no_room_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_pictures(tmp_path)
    monkeypatch.setattr(_intake, "SPAN_ROWS", 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            Bench(tmp_path).run(collect.STAGE, FOLDER, scratch="shared")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list((tmp_path / ".bench/shared").iterdir()) == []


def tar_of_pictures(path: Path, num: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(num):
            caption = f"Number {number}.".encode()
            for name, content in ((f"{number}.png", picture(number)), (f"{number}.txt", caption)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("num", [3, 4, 5])
def test_a_source_of_unknown_length_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num: int
) -> None:
    tar_of_pictures(tmp_path / "shard.tar", num)
    source = {"source": {"use": "webdataset", "path": "shard.tar"}}
    bench = Bench(tmp_path)
    whole = bench.run(collect.STAGE, source)
    monkeypatch.setattr(_intake, "SPAN_ROWS", 2)
    bench.run_part(collect.STAGE, source, part=Part(0, 2), scratch="shared")
    assert not list((tmp_path / ".bench/shared").iterdir())
    bench.run(collect.STAGE, source, scratch="shared")
    shutil.rmtree(tmp_path / ".bench/shared/span-000001")
    kept = tmp_path / ".bench/shared/span-000000"
    before = kept.stat().st_ino

    again = bench.run(collect.STAGE, source, scratch="shared")

    assert contents(whole) == contents(again)
    assert before == kept.stat().st_ino


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(artifact.path.iterdir())}


MEMORY_CHECK = """
import resource, sys
from pathlib import Path
from tests.stages.running import Bench
from engine.stages import collect

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

params = {"source": {"use": "json_file", "path": sys.argv[2]}}
found = Bench(Path(sys.argv[1])).run(collect.STAGE, params)
print(int(found.num_rows("rows")), round(peak_mb()))
"""


def test_memory_stays_flat_as_rows_grow(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(picture())
    caption = "a long caption " * 100

    def peak_mb(num_rows: int) -> int:
        name = f"{num_rows}.jsonl"
        lines = (f'{{"image": "0.png", "caption": "{n} {caption}"}}\n' for n in range(num_rows))
        (tmp_path / name).write_text("".join(lines))
        command = [sys.executable, "-c", MEMORY_CHECK, str(tmp_path), name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows, peak = done.stdout.split()
        assert num_rows == int(rows)
        return int(peak)

    # 19 000 more rows of 3 kB are 57 MB of JSON alone; ids and source ids are what is held.
    assert peak_mb(20_000) - peak_mb(1_000) < 30
