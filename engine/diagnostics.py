"""What went wrong, where, and what to do: the values behind every error message and exit code.

A `Diagnostic` is data. Rooms return or raise them; only the command line renders them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum


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
class Diagnostic:
    """One mistake: a stable code, a sentence that stands alone, its place, and a way out."""

    code: str  # kebab-case, for example "unknown-key"
    message: str
    span: Span | None = None
    hint: str | None = None
    notes: tuple[Note, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the machine-readable form used by `--json`."""
        return {
            "code": self.code,
            "message": self.message,
            **_place_json(self.span),
            "hint": self.hint,
            "notes": [{"text": note.text, **_place_json(note.span)} for note in self.notes],
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


class StageError(AdaptError):
    """A stage cannot do its work; the sentence says what to change. Raised inside stages."""

    exit_code = ExitCode.STAGE_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice spelt most like `name`, or None when nothing is close."""
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None


def render(diagnostics: Iterable[Diagnostic], read_text: Callable[[str], str | None]) -> str:
    """Render diagnostics sorted by place, each with its line and a caret.

    `read_text` maps the file of a span to its text, or None where it cannot be shown.
    """
    return "\n\n".join(_render_one(d, read_text) for d in sorted(diagnostics, key=_by_place))


def _by_place(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    span = diagnostic.span
    place = (span.file, span.line, span.column) if span else ("", 0, 0)
    return (*place, diagnostic.message)


def _render_one(diagnostic: Diagnostic, read_text: Callable[[str], str | None]) -> str:
    lines = [f"error[{diagnostic.code}]: {diagnostic.message}"]
    if diagnostic.span is not None:
        lines.append(f"  --> {diagnostic.span}")
        lines.extend(_excerpt(diagnostic.span, read_text))
    lines.extend(f"  note: {note}" for note in diagnostic.notes)
    if diagnostic.hint:
        lines.append(f"  help: {diagnostic.hint}")
    return "\n".join(lines)


def _excerpt(span: Span, read_text: Callable[[str], str | None]) -> list[str]:
    text = read_text(span.file)
    rows = text.splitlines() if text is not None else []
    if not 0 < span.line <= len(rows):
        return []
    gutter = f"{span.line:>5} | "
    caret = " " * (len(gutter) - 2) + "| " + " " * (span.column - 1) + "^"
    return [gutter + rows[span.line - 1], caret]
