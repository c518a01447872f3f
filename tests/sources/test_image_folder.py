from __future__ import annotations

from pathlib import Path

import pytest

from engine.sources import Row
from tests.sources.building import captions, fingerprint, num_rows, picture, read


def put(folder: Path, name: str, content: bytes | str) -> None:
    path = folder / "pictures" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_the_first_line_of_the_text_beside_a_picture_is_its_caption(tmp_path: Path) -> None:
    put(tmp_path, "b/cat.png", picture(1))
    put(tmp_path, "b/cat.txt", "A cat.\nes.utf8=Un gato.\n")
    put(tmp_path, "a.JPG", picture(2, image_format="JPEG"))
    put(tmp_path, "a.txt", "\ufeffEin Bär, ein 漢字.\r\n")

    found = read("image_folder", tmp_path, path="pictures")

    assert captions(found) == [("a.JPG", "Ein Bär, ein 漢字."), ("b/cat.png", "A cat.")]
    assert isinstance(found[1], Row)
    assert (picture(1),) == found[1].images


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path, "alone.png", picture())
    put(tmp_path, "blank.png", picture())
    put(tmp_path, "blank.txt", "\nthe second line\n")
    put(tmp_path, "drawing.svg", "<svg/>")
    put(tmp_path, "drawing.txt", "A drawing.")
    put(tmp_path, "empty.png", b"")
    put(tmp_path, "empty.txt", "Nothing.")
    put(tmp_path, "latin.png", picture())
    put(tmp_path, "latin.txt", "Bär".encode("latin-1"))
    put(tmp_path, "sound.ogg", b"sound")
    put(tmp_path, ".hidden.png", picture())

    expected = [
        ("alone.png", "no caption"),
        ("blank.png", "no caption"),
        ("drawing.svg", "unsupported format"),
        ("empty.png", "empty file"),
        ("latin.png", "caption is not UTF-8"),
    ]
    assert expected == captions(read("image_folder", tmp_path, path="pictures"))


def test_metadata_names_files_relative_to_its_own_folder(tmp_path: Path) -> None:
    put(tmp_path, "deep/1.png", picture())
    put(tmp_path, "deep/metadata.jsonl", '{"file_name": "1.png", "text": "One."}\n{"file": "x"}\n')
    put(tmp_path, "2.png", picture())
    put(tmp_path, "captions.csv", 'file_name,caption\n2.png,"Two, again."\n3.png,Three.\n')

    expected = [
        ("metadata.jsonl row 2", "no `file_name`"),
        ("2.png", "Two, again."),
        ("3.png", "image file not found"),
        ("deep/1.png", "One."),
    ]
    assert expected == captions(read("image_folder", tmp_path, path="pictures"))


def test_a_way_to_caption_can_be_chosen(tmp_path: Path) -> None:
    put(tmp_path, "1.png", picture())
    put(tmp_path, "1.txt", "From the text.")
    put(tmp_path, "captions.csv", "file_name,caption\n1.png,From the table.\n")

    def caption(way: str) -> str:
        return captions(read("image_folder", tmp_path, path="pictures", captions=way))[0][1]

    assert "From the table." == caption("auto") == caption("csv")
    assert caption("sidecar") == "From the text."
    assert caption("metadata") == "no caption"


def test_spans_together_are_the_whole(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path, f"{number}.png", picture(number))
        put(tmp_path, f"{number}.txt", f"Number {number}.")

    whole = read("image_folder", tmp_path, path="pictures")
    cut = [
        *read("image_folder", tmp_path, range(0, 2), path="pictures"),
        *read("image_folder", tmp_path, range(2, 5), path="pictures"),
    ]

    assert whole == cut
    assert num_rows("image_folder", tmp_path, path="pictures") == 5


def test_the_fingerprint_follows_content_and_names_but_not_the_place(tmp_path: Path) -> None:
    for home in ("here", "there"):
        put(tmp_path / home, "1.png", picture())
        put(tmp_path / home, "1.txt", "One.")
    here, there = (
        fingerprint("image_folder", tmp_path / h, path="pictures") for h in ("here", "there")
    )
    put(tmp_path / "there", "1.txt", "Another.")
    changed = fingerprint("image_folder", tmp_path / "there", path="pictures")

    assert here == there
    assert here != changed


def test_a_missing_or_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()

    with pytest.raises(FileNotFoundError, match="the folder `nowhere` does not exist"):
        fingerprint("image_folder", tmp_path, path="nowhere")
    with pytest.raises(ValueError, match="the folder `bare` has no pictures"):
        fingerprint("image_folder", tmp_path, path="bare")
