"""Reads the items of a JSON list one by one, from any marked place on, holding a chunk of its text.

LLaVA's caption lists are files of hundreds of megabytes: they fit into memory as text, but not as
text once per process, and to parse all that stands before a span takes longer than the span.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from engine.diagnostics import StageError

CHUNK_CHARS = 2**20
_SPACE = " \n\r\t"
_ENDS = (*_SPACE, ",", "]")
_DECODER = json.JSONDecoder()


class Mark(NamedTuple):
    """Where an item begins: so many characters after a chunk that can be sought."""

    cookie: int  # of `tell`
    num_chars_before: int  # characters of the file before the chunk
    place: int


START = Mark(0, 0, 0)


def items(path: Path, start: Mark = START) -> Iterator[tuple[Mark, Any]]:
    """Yield each item with its mark; the last one is the error if the file is cut off.

    Raise StageError if the file holds no list.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(file, start)
        if start == START and text.next_char() != "[":
            raise StageError(
                f"`{path.name}` is not a list of rows", hint="one object per line? call it .jsonl"
            )
        text.place += start == START
        while text.next_char() != "]":
            mark = text.mark()
            try:
                value = text.value()
            except json.JSONDecodeError:
                yield mark, _error(path, mark)
                return
            yield mark, value
            text.next_char(also=",")


class _Text:
    """The text of a file from a mark on, read as far as it is needed."""

    def __init__(self, file: TextIO, start: Mark) -> None:
        self.place = start.place
        self._file = file
        self._text = ""
        self._chunks: deque[tuple[int, int]] = deque()  # cookie and length
        self._num_chars_before = start.num_chars_before
        file.seek(start.cookie)

    def mark(self) -> Mark:
        """Return the mark of the present place; what stands in chunks before it is forgotten."""
        while len(self._chunks) > 1 and self.place >= self._chunks[0][1]:
            _, length = self._chunks.popleft()
            self._text = self._text[length:]
            self.place -= length
            self._num_chars_before += length
        return Mark(self._chunks[0][0], self._num_chars_before, self.place)

    def next_char(self, also: str = "") -> str:
        """Go past white space, and `also`; return the character that follows, "" at the end."""
        while True:
            while self.place < len(self._text) and self._text[self.place] in _SPACE + also:
                self.place += 1
            if self.place < len(self._text) or not self._read():
                return self._text[self.place : self.place + 1]

    def value(self) -> Any:
        """Go past one value and return it. Raise JSONDecodeError if there is none."""
        while True:
            try:
                value, place = _DECODER.raw_decode(self._text, self.place)
            except json.JSONDecodeError:
                if not self._read():
                    raise
                continue
            if self._is_whole(place) or not self._read():
                self.place = place
                return value

    def _is_whole(self, place: int) -> bool:
        """Tell whether a value that ends here could not go on: 12 may be the start of 12.5."""
        return self._text[place - 1] in '}]"' or self._text[place : place + 1] in _ENDS

    def _read(self) -> bool:
        """Read at least as much again as is held, so that a long value costs linear time."""
        cookie = self._file.tell()
        chunk = self._file.read(max(CHUNK_CHARS, len(self._text) - self.place))
        if chunk:
            self._chunks.append((cookie, len(chunk)))
            self._text += chunk
        return bool(chunk)


def _error(path: Path, mark: Mark) -> json.JSONDecodeError:
    """Return the error at a mark as the whole file gives it, with line and column."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        _DECODER.raw_decode(text, mark.num_chars_before + mark.place)
    except json.JSONDecodeError as error:
        return error
    raise AssertionError("what could not be read in chunks can be read at once")
