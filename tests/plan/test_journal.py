from __future__ import annotations

import resource
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from engine.plan import journal

ROWS = [{"text": "über\n\u2028", "n": 1}, {"text": None, "n": 2.5}]


def must_not() -> NoReturn:
    raise AssertionError("worked on again")


def test_a_finished_shard_is_read_back_as_it_was_returned(tmp_path: Path) -> None:
    first = journal.kept(tmp_path, "s", 3, lambda: ROWS)

    assert ROWS == first == journal.kept(tmp_path, "s", 3, must_not)


def test_a_shard_without_rows_is_finished_too(tmp_path: Path) -> None:
    journal.kept(tmp_path, "s", 0, list)

    assert journal.kept(tmp_path, "s", 0, must_not) == []


def test_a_shard_that_is_cut_anywhere_is_worked_on_again(tmp_path: Path) -> None:
    journal.kept(tmp_path, "s", 0, lambda: ROWS)
    path = journal.shard_path(tmp_path, "s", 0)
    whole = path.read_bytes()

    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert journal.read(path) is None
    assert journal.kept(tmp_path, "s", 0, lambda: ROWS[:1]) == ROWS[:1]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    journal.kept(tmp_path, "s", 0, lambda: ROWS)
    path = journal.shard_path(tmp_path, "s", 0)
    whole = path.read_bytes()

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert journal.read(path) is None


def test_what_a_dead_writer_left_is_no_shard(tmp_path: Path) -> None:
    def die() -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.kept(tmp_path, "s", 0, die)
    path = journal.shard_path(tmp_path, "s", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text("half")

    assert journal.kept(tmp_path, "s", 0, lambda: ROWS) == ROWS


def test_a_shard_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.kept(tmp_path, "s", 0, lambda: ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_writers_of_one_shard_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = journal.shard_path(tmp_path, "s", 0)
    found: list[object] = []

    def write() -> None:
        found.extend(journal.write(path, ROWS) for _ in range(50))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert found == [ROWS] * 200
    assert journal.read(path) == ROWS
    assert [path] == list(path.parent.iterdir())


def test_no_folder_holds_more_than_a_thousand_shards(tmp_path: Path) -> None:
    folders = {journal.shard_path(tmp_path, "s", number).parent for number in range(2500)}

    assert len(folders) == 3
