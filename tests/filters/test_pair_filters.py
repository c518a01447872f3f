from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.filters import Verdict
from engine.wording import num_words
from tests.filters.building import artifact, judged
from tests.sources.building import encoded, picture


def blank(width: int, height: int) -> bytes:
    from PIL import Image

    return encoded(Image.new("RGB", (width, height)))


def recompressed(content: bytes, *, side_px: int, quality: int = 80) -> bytes:
    from engine.images import decode

    return encoded(decode(content).resize((side_px, side_px)), "JPEG")


def test_small_and_narrow_pictures_are_dropped(tmp_path: Path) -> None:
    pairs = artifact(
        tmp_path / "pairs",
        [("a", blank(32, 40), "x"), ("b", blank(31, 90), "x"), ("c", blank(400, 32), "x")],
    )

    assert {
        "a": None,
        "b": Verdict("too small", "31 x 90 px"),
        "c": Verdict("too narrow", "400 x 32 px"),
    } == judged("image_size", pairs, min_side_px=32, max_aspect_ratio=10)


def test_short_and_long_captions_are_dropped(tmp_path: Path) -> None:
    pairs = artifact(
        tmp_path / "pairs",
        [
            ("a", blank(8, 8), "a cat, sitting"),
            ("b", blank(8, 8), "cat"),
            ("c", blank(8, 8), "a " * 9),
        ],
    )

    assert {
        "a": None,
        "b": Verdict("caption too short", "1 words"),
        "c": Verdict("caption too long", "9 words"),
    } == judged("caption_length", pairs, min_words=2, max_words=8)


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("Ein Bär.", 2), ("一只猫在睡觉", 3), ("X-ray 漢字", 3)]
)
def test_words_are_counted_in_every_script(text: str, expected: int) -> None:
    assert expected == num_words(text)


def test_texts_in_circles_are_dropped(tmp_path: Path) -> None:
    circle = "the cells are in a ring and " * 3
    pairs = artifact(
        tmp_path / "pairs",
        [
            ("a", blank(8, 8), "No words of this text are ever said in the same order twice."),
            ("b", blank(8, 8), circle),
            ("c", blank(8, 8), "yes yes"),
        ],
    )

    assert judged("repetition", pairs) == {
        "a": None,
        "b": Verdict("repeats itself", "ratio 1.00"),
        "c": None,
    }


def test_equal_pixels_are_duplicates_in_any_format(tmp_path: Path) -> None:
    pairs = artifact(
        tmp_path / "pairs",
        [
            ("a", picture(1), "one"),
            ("b", picture(1, image_format="BMP"), "another caption"),
            ("c", recompressed(picture(1), side_px=48), "recompressed"),
            ("d", picture(2), "two"),
        ],
    )

    assert {
        "a": None,
        "b": Verdict("duplicate image", "of a, equal pixels"),
        "c": None,
        "d": None,
    } == judged("near_duplicate", pairs, max_distance_bits=0)


def test_recompressed_pictures_are_near_duplicates(tmp_path: Path) -> None:
    pairs = artifact(
        tmp_path / "pairs",
        [
            ("a", picture(1, side_px=64), "one"),
            ("b", recompressed(picture(1, side_px=64), side_px=48), "recompressed"),
            ("c", picture(2, side_px=64), "two"),
        ],
    )

    verdicts = judged("near_duplicate", pairs, max_distance_bits=4)

    assert [source_id for source_id, verdict in verdicts.items() if verdict] == ["b"]
    assert verdicts["b"] is not None
    assert verdicts["b"].detail.startswith("of a, ")


def test_pictures_of_a_benchmark_are_dropped_with_the_item_they_are_in(tmp_path: Path) -> None:
    pairs = artifact(
        tmp_path / "pairs",
        [
            ("a", picture(1), "one"),
            ("b", picture(2), "two"),
            ("c", recompressed(picture(3, side_px=64), side_px=48), "three"),
        ],
    )
    benchmark = artifact(
        tmp_path / "bench",
        [
            ("q7", picture(2, image_format="BMP"), "x"),
            ("q9", picture(3, side_px=64), "x"),
            ("a", picture(8), "x"),
        ],
    )

    def dropped(**settings: Any) -> dict[str, Verdict]:
        verdicts = judged("decontaminate", pairs, {"slake": benchmark}, **settings)
        return {source_id: verdict for source_id, verdict in verdicts.items() if verdict}

    assert {"b": Verdict("in benchmark slake", "item q7, equal pixels")} == dropped()
    assert {"b", "c"} == dropped(max_distance_bits=4).keys()
    assert {"a", "b"} == dropped(by_source_id=True).keys()


def test_twenty_thousand_hashes_are_searched_quickly_and_exactly() -> None:
    import random

    from engine.filters._signatures import NearestHashes

    rng = random.Random(0)
    hashes = NearestHashes()
    values = [rng.getrandbits(64) for _ in range(20_000)]
    for number, value in enumerate(values):
        hashes.add(value, str(number))

    assert hashes.within(values[-1] ^ 0b10101, 4) == ("19999", 3)
    assert hashes.within(values[-1] ^ 0b10101, 2) is None
