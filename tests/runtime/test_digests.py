from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.cli.compiled import Watch
from engine.runtime.digests import DigestCache


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_by(cache: DigestCache, *paths: Path) -> set[str]:
    """Hash files; return the names of those that were really opened."""
    watch = Watch()
    with watch.on():
        found = cache.many(map(str, paths))
    assert found == [sha256(path) for path in paths]
    return {Path(name).name for name in watch.files} & {path.name for path in paths}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Files that have been still for longer than the clock's word is doubted."""
    folder = tmp_path_factory.mktemp("old")
    paths = tuple(folder / f"{number}.bin" for number in range(4))
    for path in paths:
        path.write_text(f"file {path.name}")
    time.sleep(2.1)  # nothing but the clock can set the time of the last change of an inode
    return paths


def saved(folder: Path, *paths: Path) -> Path:
    cache = DigestCache(folder / "digests")
    cache.many(map(str, paths))
    cache.save()
    return folder / "digests"


def test_a_file_is_read_once(tmp_path: Path, old: tuple[Path, ...]):
    folder = saved(tmp_path, *old)

    assert read_by(DigestCache(folder), *old) == set()


def test_one_changed_file_is_one_that_is_read(tmp_path: Path, old: tuple[Path, ...]):
    folder = saved(tmp_path, *old)
    before = old[1].stat()
    old[1].write_text(f"FILE {old[1].name}")
    os.utime(old[1], ns=(before.st_atime_ns, before.st_mtime_ns))

    assert read_by(DigestCache(folder), *old) == {old[1].name}


def test_a_new_file_is_the_only_one_that_is_read(tmp_path: Path, old: tuple[Path, ...]):
    folder = saved(tmp_path, *old[:-1])

    assert read_by(DigestCache(folder), *old) >= {old[-1].name}
    assert not read_by(DigestCache(folder), *old) & {path.name for path in old[2:3]}


def test_a_file_that_was_written_a_moment_ago_is_read_again(tmp_path: Path):
    path = tmp_path / "new.bin"
    path.write_text("one")
    folder = saved(tmp_path, path)

    assert not folder.exists()
    assert read_by(DigestCache(folder), path) == {"new.bin"}


def test_two_writes_within_one_tick_are_told_apart(tmp_path: Path):
    path = tmp_path / "new.bin"
    path.write_text("000")
    cache = DigestCache(tmp_path / "digests")
    with path.open("r+b", buffering=0) as file:
        for number in range(300):  # in place and of equal size: `stat` may well say the same
            file.seek(0)
            file.write(f"{number:03}".encode())
            assert cache.digest_file(path) == hashlib.sha256(f"{number:03}".encode()).hexdigest()


def test_nothing_that_was_written_later_than_now_is_trusted(tmp_path: Path, old: tuple[Path, ...]):
    folder = saved(tmp_path, *old[2:])
    set_back = DigestCache(folder, clock=lambda: time.time() - 60)

    assert read_by(set_back, *old[2:]) == {path.name for path in old[2:]}


def test_what_a_clock_from_the_past_learns_of_a_later_file_is_not_kept(
    tmp_path: Path, old: tuple[Path, ...]
):
    cache = DigestCache(tmp_path / "digests", clock=lambda: time.time() - 3600)
    cache.many(map(str, old))
    cache.save()

    assert not (tmp_path / "digests").exists()


def test_any_damage_is_noticed(tmp_path: Path, old: tuple[Path, ...]):
    folder = saved(tmp_path, *old[2:])
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        assert DigestCache(folder).many(map(str, old[2:])) == [sha256(path) for path in old[2:]]
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert DigestCache(folder).many(map(str, old[2:])) == [sha256(path) for path in old[2:]]


def test_two_writers_at_once_leave_a_cache_that_is_right(tmp_path: Path, old: tuple[Path, ...]):
    program = (
        "import sys, json; from pathlib import Path\n"
        "from engine.runtime.digests import DigestCache\n"
        "for _ in range(50):\n"
        "    cache = DigestCache(Path(sys.argv[1]))\n"
        "    cache.many(sys.argv[2:]); cache._folders.clear(); cache.many(sys.argv[2:])\n"
        "    [setattr(f, 'is_changed', True) for f in cache._folders.values()]; cache.save()\n"
        "print(json.dumps(cache.many(sys.argv[2:])))"
    )
    folder = tmp_path / "digests"
    shares = (old[2:], old[3:])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder), *map(str, share)], stdout=subprocess.PIPE
        )
        for share in shares
    ]
    for writer, share in zip(writers, shares, strict=True):
        out, _ = writer.communicate(timeout=60)
        assert json.loads(out) == [sha256(path) for path in share]

    assert DigestCache(folder).many(map(str, old)) == [sha256(path) for path in old]


def test_many_large_files_are_hashed_side_by_side_and_in_order(tmp_path: Path):
    paths = [tmp_path / f"{number}.bin" for number in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (1 << 20))
    cache = DigestCache(tmp_path / "digests")

    assert cache.many(map(str, paths)) == [sha256(path) for path in paths]
    assert cache.used == {str(path) for path in paths}


def test_names_that_are_no_text_are_remembered(tmp_path: Path, old: tuple[Path, ...]):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.bin")).hardlink_to(old[3])
    (path,) = folder.iterdir()
    time.sleep(2.1)  # a link is a change of the inode
    kept = saved(tmp_path, path)

    assert read_by(DigestCache(kept), path) == set()
