"""Mistakes are shown in bounded space, with the caret below its column on any terminal."""

from __future__ import annotations

import pytest

from engine.diagnostics import MAX_COLUMNS, MAX_SHOWN, Diagnostic, Note, Span, render


def shown(row: str, column: int, **more: str) -> list[str]:
    """Return the lines printed for a mistake in a file of one line."""
    item = Diagnostic("code", "message", Span("f", 1, column), **more)
    return render([item], lambda _: row).split("\n")


@pytest.mark.parametrize(
    ("row", "column", "before"),
    [
        ("ab: c", 5, "    "),
        ("\tb: c", 5, "\t   "),
        ("\u56fe: c", 4, "    "),  # wide: two columns on a terminal
        ("\U0001f600: c", 4, "    "),
        ("e\u0301: c", 5, "   "),  # a combining accent takes no column
    ],
)
def test_the_caret_stands_below_its_character(row: str, column: int, before: str):
    _, _, _, caret = shown(row, column)

    assert caret == "      | " + before + "^"


def test_of_a_long_line_only_what_is_near_is_shown():
    row = "x" * 5_000 + "here" + "y" * 5_000
    _, _, excerpt, caret = shown(row, 5_001)

    assert excerpt[caret.index("^") :].startswith("here")
    assert excerpt.endswith("y...")
    assert len(excerpt) < MAX_COLUMNS + 20


def test_the_ends_of_a_long_line_are_shown_as_ends():
    row = "begin" + "x" * 1_000 + "end"
    _, _, first, _ = shown(row, 1)
    _, _, last, caret = shown(row, 1_006)

    assert first.startswith("    1 | begin")
    assert last.endswith("xend")
    assert last[caret.index("^") :] == "end"


def test_nothing_in_a_recipe_can_steer_the_terminal():
    item = Diagnostic(
        "code", "`\x1b[2J` is no key", Span("f\x07", 1, 1), "\u202e", (Note("\x9b1m"),)
    )
    text = render([item], lambda _: "\x1b]0;title\x07")

    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert "]0;title" in text


def test_thousands_of_mistakes_are_shown_in_part_and_counted():
    items = [Diagnostic("code", "message", Span("f", n, 1)) for n in range(1, 1_001)]
    text = render(items, lambda _: "row\n" * 1_000)

    assert text.count("error[code]") == MAX_SHOWN
    assert text.endswith("and 800 more; `--json` lists all 1000")


def test_a_file_is_read_once_however_many_mistakes_it_has():
    reads: list[str] = []

    def read_text(file: str) -> str:
        reads.append(file)
        return "a\nb\n"

    render([Diagnostic("c", "m", Span("f", n, 1)) for n in (1, 2)], read_text)

    assert reads == ["f"]
