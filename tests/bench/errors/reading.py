"""What a message of a tool tells: found in its text by rules that are the same for every tool.

Frames of a Python traceback are not counted as telling a line: the lines they name are of the tool.
Only the tool's file is ours to mend, so only its name or `line N` outside a frame counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.errors.mistakes import Mistake, first_wrong_line, text

_FRAME = re.compile(r'^\W*File "([^"]+)", line \d+')
_CARETS = re.compile(r"^[\s|.:]*\^+\s*$")
_MARGIN = r"^[\s\d|\u2502>:]*"  # what stands before a quoted line
_STAMP = re.compile(
    r"\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.]?\d*\]?( >>)?|\[PID:\d+\]|0x[0-9a-f]{6,}"
)
_NOISE = re.compile(r"\d+%\||examples/s\]|^  User: |^  Config MD5: ")
SHOWN = 16  # lines of a message that are shown whole


@dataclass(frozen=True, slots=True)
class Reading:
    """What one message tells."""

    is_refused: bool
    named: int  # of `of` words that name what is wrong
    of: int
    has_line: bool
    has_column: bool
    has_excerpt: bool
    has_caret: bool
    has_offer: bool | None  # None: nothing could be offered
    has_traceback: bool


def read(tool: str, file: str, mistake: Mistake, said: str, exit_code: int) -> Reading:
    """Return what a message tells of a mistake in a file."""
    message = "\n".join(_without_frames(said, file))
    wrong = first_wrong_line(tool, mistake)
    near = [
        line.strip() for line in text(tool, mistake).splitlines()[max(wrong - 2, 0) : wrong + 1]
    ]
    quoted = re.compile(
        _MARGIN + "(" + "|".join(re.escape(line) for line in near if line) + r")\s*$"
    )
    lines = _numbers(rf"(?:\bline |{re.escape(file)}:|lines \d+-)(\d+)", message)
    pattern = rf"(?:\bcolumn |\bcol |{re.escape(file)}:\d+:|:\s*line \d+:)(\d+)"
    has_line = any(abs(line - wrong) <= 1 for line in lines)  # some point at the value below
    names = mistake.names[tool]
    is_refused = exit_code != 0
    return Reading(
        is_refused=is_refused,
        named=sum(_holds(message, word) for word in names) if is_refused else 0,
        of=len(names),
        has_line=is_refused and has_line,
        has_column=is_refused and has_line and bool(_numbers(pattern, message)),
        has_excerpt=is_refused and any(quoted.match(line) for line in message.splitlines()),
        has_caret=is_refused and any(_CARETS.match(line) for line in message.splitlines()),
        has_offer=_has_offer(mistake.offers.get(tool, ()), message, is_refused),
        has_traceback="Traceback (most recent call last)" in said,
    )


def _holds(message: str, word: str) -> bool:
    """Tell whether a message has a word, or one of several set apart by `|`."""
    return any(one in message for one in word.split("|"))


def _has_offer(words: Sequence[str], message: str, is_refused: bool) -> bool | None:
    return is_refused and any(_holds(message, word) for word in words) if words else None


def tidy(said: str, names: Mapping[str, str]) -> str:
    """Return a message as it is shown: no times, no folders of this machine, no long traceback."""
    for folder, name in sorted(names.items(), key=lambda pair: -len(pair[0])):
        said = said.replace(folder, name)
    lines = [_STAMP.sub("", line).rstrip() for line in said.strip().splitlines()]
    lines = [line for line in lines if line and not _NOISE.search(line)]
    if len(lines) <= SHOWN:
        return "\n".join(lines)
    return "\n".join([f"[... {len(lines) - SHOWN} lines above ...]", *lines[-SHOWN:]])


def _without_frames(said: str, file: str) -> Iterator[str]:
    """Yield the lines that are no frame of a traceback, but for frames in the user's own file."""
    is_in_frame = False
    for line in said.splitlines():
        frame = _FRAME.match(line)
        if frame:
            is_in_frame = not frame[1].endswith(f"/{file}") and frame[1] != file
        elif is_in_frame and not line.startswith("    "):
            is_in_frame = False
        if not is_in_frame:
            yield line


def _numbers(pattern: str, message: str) -> set[int]:
    return {int(number) for number in re.findall(pattern, message)}
