from __future__ import annotations

import pytest

from engine.records import (
    ImagePart,
    Kind,
    Meta,
    RecordError,
    TextPart,
    assistant,
    from_json,
    make_record,
    pair,
    parts_from_markers,
    to_json,
    user,
)

META = Meta(Kind.PAIR, "row 1", licence="CC0", lineage=("a",), extra={"n": 1})


def test_a_record_reads_back_equal_from_its_json():
    record = pair("0" * 64, "a caption", META)

    assert from_json(to_json(record)) == record


def test_the_id_is_a_digest_of_content_and_not_of_its_source():
    elsewhere = Meta(Kind.PAIR, "row 2")

    assert pair("x", "same", META).id == pair("x", "same", elsewhere).id
    assert pair("x", "same", META).id != pair("x", "other", META).id


def test_a_row_with_fewer_markers_than_images_is_refused():
    with pytest.raises(RecordError, match="0 image markers for 1 images"):
        make_record(["x"], [user("no marker"), assistant("answer")], META)


def test_broken_unicode_is_refused_and_not_a_crash():
    with pytest.raises(RecordError, match="not Unicode"):
        pair("x", "a lone surrogate \ud800", META)


def test_markers_become_parts_in_their_order():
    parts = parts_from_markers("left <image> and <image> right")

    assert parts == (
        TextPart("left"),
        ImagePart(0),
        TextPart("and"),
        ImagePart(1),
        TextPart("right"),
    )
