from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.models._inputs import InputMaker
from engine.models._loading import open_kit
from engine.records import Record
from engine.training import masks, prepared
from tests.models import tiny
from tests.training.rows import PICTURES, color_rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.idefics3(tmp_path_factory.mktemp("base"))


@pytest.fixture
def reads() -> list[str]:
    return []


@pytest.fixture
def inputs(base: Path, reads: list[str]) -> InputMaker:
    def read(digest: str) -> bytes:
        reads.append(digest)
        return PICTURES[digest]

    return InputMaker(open_kit(str(base)), read)


def many_rows() -> Iterator[Record]:
    """Yield rows of three chunks, some of no use."""
    lost = replace(color_rows(1)[0], images=("0" * 64,))
    for number, row in enumerate(color_rows(2500)):
        yield lost if number % 100 == 7 else row


def test_examples_on_disk_are_those_in_memory(inputs: InputMaker, tmp_path: Path):
    import numpy as np

    notes: list[tuple[str, str, str]] = []
    rows = list(many_rows())
    kept = list(masks.examples(rows, inputs, 256, lambda *note: notes.append(note)))
    stored = prepared.prepare(many_rows(), inputs, 256, tmp_path)

    assert (len(stored), stored.num_rows) == (len(kept), 2500)
    assert stored.lengths == [len(one) for one in kept]
    assert list(stored.ledger()) == notes
    assert len(notes) == 25
    for number in (0, 1013, 1014, 2474):
        ours, theirs = stored[number], kept[number]
        assert np.array_equal(ours.ids, theirs.ids)
        assert np.array_equal(ours.is_trained, theirs.is_trained)
        assert (ours.digests, ours.text) == (theirs.digests, theirs.text)


def test_rows_are_prepared_once(inputs: InputMaker, reads: list[str], tmp_path: Path):
    first = prepared.prepare(color_rows(), inputs, 256, tmp_path)
    reads.clear()
    again = prepared.prepare(color_rows(), inputs, 256, tmp_path)

    assert reads == []
    assert again.digest == first.digest


def test_a_damaged_file_of_examples_is_written_anew(inputs: InputMaker, tmp_path: Path):
    first = prepared.prepare(color_rows(), inputs, 256, tmp_path)
    (path,) = [chunk.path for chunk in first.chunks]
    data = bytearray(path.read_bytes())
    data[random.Random(1).randrange(len(data))] ^= 8
    path.write_bytes(data)
    again = prepared.prepare(color_rows(), inputs, 256, tmp_path)

    assert again.digest == first.digest
    assert path.read_bytes() != data


def test_other_rows_in_the_same_place_are_prepared_anew(inputs: InputMaker, tmp_path: Path):
    first = prepared.prepare(color_rows(), inputs, 256, tmp_path)
    other = prepared.prepare(color_rows(5), inputs, 256, tmp_path)
    shorter = prepared.prepare(color_rows(), inputs, 8, tmp_path)

    assert (len(first), len(other), len(shorter)) == (12, 5, 0)
    assert [reason for _, reason, _ in shorter.ledger()] == [masks.TOO_LONG] * 12
