"""What went wrong, where, and what to do: the values behind every error message and exit code.

A `Diagnostic` is data. Rooms return or raise them; only the command line renders them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

MAX_SHOWN = 200  # mistakes that a person is shown at once
MAX_COLUMNS = 160  # of a line in an excerpt
STAGE_FAILED = "stage-failed"  # the code of a failure that has no better one


class ExitCode(IntEnum):
    """Exit codes of the command `adapt`."""

    DONE = 0
    REQUEST_WRONG = 1  # the recipe or the request is wrong; nothing was run
    USAGE = 2
    STAGE_FAILED = 3
    ENGINE_BUG = 4
    GATE_SAID_NO = 5
    STOPPED_RESUMABLE = 75
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A place in a text file; line and column count from 1.

    Line 0 means that `file` says all there is to say, for example "--set base.modle".
    """

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        if self.line == 0:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Note:
    """What else there is to know about a mistake, and where."""

    text: str
    span: Span | None = None

    def __str__(self) -> str:
        return f"{self.span} {self.text}" if self.span else self.text


@dataclass(frozen=True, slots=True)
class Fix:
    """A change of the text at one place that certainly mends a mistake."""

    span: Span
    old: str  # what is written there, within one line
    new: str

    def to_json(self) -> dict[str, object]:
        """Return the machine-readable form."""
        return {**_place_json(self.span), "old": self.old, "new": self.new}


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: a stable code, a sentence that stands alone, its place, and a way out."""

    code: str  # kebab-case, for example "unknown-key"
    message: str
    span: Span | None = None
    hint: str | None = None
    notes: tuple[Note, ...] = ()
    fix: Fix | None = None

    def to_json(self) -> dict[str, object]:
        """Return the machine-readable form used by `--json`."""
        return {
            "code": self.code,
            "message": self.message,
            **_place_json(self.span),
            "hint": self.hint,
            "notes": [{"text": note.text, **_place_json(note.span)} for note in self.notes],
            "fix": self.fix.to_json() if self.fix else None,
        }


def _place_json(span: Span | None) -> dict[str, object]:
    return {
        "file": span.file if span else None,
        "line": span.line if span else None,
        "column": span.column if span else None,
    }


class AdaptError(Exception):
    """Base of every error the user can cause or act on."""

    exit_code = ExitCode.ENGINE_BUG


class RequestError(AdaptError):
    """The recipe or the request is wrong. Carries every mistake found, not just the first."""

    exit_code = ExitCode.REQUEST_WRONG

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics = tuple(sorted(diagnostics, key=_by_place))


class GateError(AdaptError):
    """All is well formed, but a gate that was asked for says no: a lock that the facts left."""

    exit_code = ExitCode.GATE_SAID_NO

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics = tuple(sorted(diagnostics, key=_by_place))


class StageError(AdaptError):
    """A stage cannot do its work; the sentence says what to change. Raised inside stages.

    One that `is_transient` may pass by itself (a busy server): its node is tried again. `about`
    names the setting at fault, which the command line finds in the recipe: keys below a source, as
    ("columns", "caption"), or a model, as ("model", "owner/name").
    """

    exit_code = ExitCode.STAGE_FAILED

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        is_transient: bool = False,
        code: str = STAGE_FAILED,
        about: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.is_transient = is_transient
        self.code = code
        self.about = about


class EngineDiedError(StageError):
    """The engine that runs a model broke down under the requests it had in hand.

    The process is started anew, and finds out which of them it was.
    """


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice spelt most like `name`, or None when nothing is close."""
    import difflib

    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None


def render(diagnostics: Iterable[Diagnostic], read_text: Callable[[str], str | None]) -> str:
    """Render diagnostics sorted by place, each with its line and a caret.

    `read_text` maps the file of a span to its text, or None where it cannot be shown.
    """
    found = sorted(diagnostics, key=_by_place)
    rows = cache(lambda file: (read_text(file) or "").splitlines())
    parts = [_render_one(item, rows) for item in found[:MAX_SHOWN]]
    if len(found) > MAX_SHOWN:
        parts.append(f"and {len(found) - MAX_SHOWN} more; `--json` lists all {len(found)}")
    return "\n\n".join(parts)


def _by_place(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    span = diagnostic.span
    place = (span.file, span.line, span.column) if span else ("", 0, 0)
    return (*place, diagnostic.message)


def _render_one(diagnostic: Diagnostic, rows: Callable[[str], Sequence[str]]) -> str:
    lines = [_visible(f"error[{diagnostic.code}]: {diagnostic.message}")]
    if diagnostic.span is not None:
        lines.append(_visible(f"  --> {diagnostic.span}"))
        lines.extend(_excerpt(diagnostic.span, rows(diagnostic.span.file)))
    lines.extend(_visible(f"  note: {note}") for note in diagnostic.notes)
    if diagnostic.hint:
        lines.append(_visible(f"  help: {diagnostic.hint}"))
    return "\n".join(lines)


def _excerpt(span: Span, rows: Sequence[str]) -> list[str]:
    """Return the line of a span and a caret below its column; of a long line, what is near."""
    if not 0 < span.line <= len(rows):
        return []
    row, column = rows[span.line - 1], span.column - 1
    start = 0 if len(row) <= MAX_COLUMNS else max(0, column - MAX_COLUMNS // 2)
    near = row[start : start + MAX_COLUMNS]
    before = ("..." if start else "") + near[: column - start]
    after = near[column - start :] + ("..." if start + MAX_COLUMNS < len(row) else "")
    gutter = f"{span.line:>5} | "
    return [
        gutter + _visible(before + after, tabs=True),
        " " * (len(gutter) - 2) + "| " + "".join(map(_blank, before)) + "^",
    ]


def _visible(text: str, *, tabs: bool = False) -> str:
    """Return a text whose control characters cannot steer a terminal."""
    return "".join(
        character if character.isprintable() or (tabs and character == "\t") else "\ufffd"
        for character in text
    )


def _blank(character: str) -> str:
    """Return white space as wide as a character is on a terminal."""
    import unicodedata

    if character == "\t":
        return character
    if unicodedata.combining(character):
        return ""
    return "  " if unicodedata.east_asian_width(character) in "WF" else " "
