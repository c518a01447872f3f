from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from engine.diagnostics import StageError
from engine.sources import _json_list

VALUES = (
    {"a": 'q"]\\', "é": [1, 2.5]},
    {},
    [],
    "漢字 \U0001f600",
    12345,
    -1e9,
    None,
    True,
    {"x": "y" * 90},
)


def lists() -> list[str]:
    """Return texts of lists: compact and spread over lines, one of them with a byte-order mark."""
    rng = random.Random(0)
    values = [rng.choice(VALUES) for _ in range(40)]
    spread = json.dumps(values, indent=2, ensure_ascii=False)
    return [json.dumps(values), spread, "\ufeff" + spread + "\n", "[]", " [ 1 ] ", "[1,\r\n2]"]


def read(path: Path, start: _json_list.Mark = _json_list.START) -> list[Any]:
    return [value for _, value in _json_list.items(path, start)]


@pytest.mark.parametrize("chunk_chars", [1, 7, 64, 4096])
@pytest.mark.parametrize("text", lists(), ids=range(6))
def test_a_list_is_read_in_chunks_of_any_size_and_from_any_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk_chars: int
) -> None:
    monkeypatch.setattr(_json_list, "CHUNK_CHARS", chunk_chars)
    path = tmp_path / "rows.json"
    path.write_bytes(text.encode())
    expected = json.loads(text.removeprefix("\ufeff"))

    marks = [mark for mark, _ in _json_list.items(path)]

    assert expected == read(path)
    for number, mark in enumerate(marks):
        assert expected[number:] == read(path, mark)


def test_a_list_that_is_cut_off_ends_with_the_error_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_json_list, "CHUNK_CHARS", 5)
    path = tmp_path / "rows.json"
    whole = '[{"a": 1},\n {"b": "é"},\n {"c": [3, 4]}]'

    for size in range(1, len(whole)):
        path.write_text(whole[:size], encoding="utf-8")
        *values, error = read(path)
        assert values == [{"a": 1}, {"b": "é"}, {"c": [3, 4]}][: len(values)]
        assert isinstance(error, json.JSONDecodeError)
        assert error.doc == whole[:size]


def test_a_file_without_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for text in ("", '{"a": 1}', "12"):
        path.write_text(text)
        with pytest.raises(StageError, match=r"`rows\.json` is not a list of rows"):
            read(path)


def test_a_long_list_is_never_held_whole(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "a" * 1000, "n": n} for n in range(20_000)]))

    tracemalloc.start()
    assert sum(1 for _ in _json_list.items(path)) == 20_000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < path.stat().st_size / 3
