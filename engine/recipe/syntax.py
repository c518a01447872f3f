"""What is wrong with a text that is no YAML, said for the person who wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.diagnostics import Diagnostic, Note, Span

_HINTS = (
    ("mapping values are not allowed", "quote a text that contains `: `, or check the indentation"),
    (
        "cannot start any token",
        "indent with spaces, not tabs; quote a text that begins with `@`, `%` or a backtick",
    ),
    ("unexpected end of stream", "a quote that opens here is never closed"),
    ("did not find expected key", "check the indentation, and that quotes and brackets are closed"),
    ("did not find expected '-' indicator", "check the indentation: a list and a key are mixed"),
    ("could not find expected ':'", "a key is followed by `: ` and its value"),
    ("did not find expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("unknown escape character", "in single quotes a backslash is only a backslash"),
    ("alphabetic or numeric character", "quote a text that begins with `&` or `*`"),
    ("comment or line break", "quote a text that begins with `|` or `>`"),
)
_NO_VALUE = "did not find expected node content"


def mistake(error: Any, text: str, file: str, open_brackets: Sequence[Span]) -> Diagnostic:
    """Return the diagnostic for an error of the parser, which had seen `open_brackets`."""
    problem = error_text(error)
    context = str(getattr(error, "context", None) or "")
    said = f"this is not valid YAML: {problem}" + (f" ({context})" if context else "")
    lines = text.splitlines()
    span = _place(error, text, file)
    began = getattr(error, "context_mark", None)
    if span.line > len(lines) or "end of stream" in problem:  # the end explains nothing
        if open_brackets and "quoted" not in context:
            hint = "the bracket that opens here is never closed"
            return Diagnostic("syntax", said, open_brackets[-1], hint)
        span = _at(began, file) if began else span_after("\n".join(lines), file)
    line = lines[span.line - 1] if 0 < span.line <= len(lines) else ""
    notes: tuple[Note, ...] = ()
    way_out = _hint(problem, bool(open_brackets), line)
    if isinstance(getattr(error, "character", None), int):
        way_out = f"remove the character U+{error.character:04X}; most editors do not show it"
    if "flow" in context and open_brackets and open_brackets[-1].line < span.line:
        notes = (Note("is the bracket that is still open", open_brackets[-1]),)
    elif way_out and began is not None and began.line + 1 < span.line:
        way_out += f" (it begins in line {began.line + 1})"
    return Diagnostic("syntax", said, span, way_out, notes)


def error_text(error: Any) -> str:
    """Return what the parser complains of."""
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)


def span_after(text: str, file: str) -> Span:
    """Return the place that follows a text."""
    lines = f"{text}|".splitlines()
    return Span(file, len(lines), len(lines[-1]))


def _hint(problem: str, is_in_brackets: bool, line: str) -> str | None:
    if "${" in line:
        return 'inside brackets a reference needs quotes: "${section.key}"'
    if _NO_VALUE in problem:
        if is_in_brackets:
            return "a value is missing here, or there is a comma too many"
        return "a bracket is closed that was not opened; quote a text that begins with one"
    return next((hint for part, hint in _HINTS if part in problem), None)


def _place(error: Any, text: str, file: str) -> Span:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return _at(mark, file)
    before = text.encode("utf-8")[: getattr(error, "position", 0)]  # counted in bytes
    return span_after(before.decode("utf-8", errors="ignore"), file)


def _at(mark: Any, file: str) -> Span:
    return Span(file, mark.line + 1, mark.column + 1)
