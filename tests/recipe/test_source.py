from __future__ import annotations

from pathlib import Path

import pytest

from engine.diagnostics import Diagnostic, RequestError, Span
from engine.recipe.source import MAX_DEPTH, places, read, read_file


def mistakes_of(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(RequestError) as caught:
        read(text, "r.yaml")
    return caught.value.diagnostics


def codes_and_lines(text: str) -> list[tuple[str, int]]:
    return [(d.code, d.span.line) for d in mistakes_of(text) if d.span]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        (".5", 0.5),
        ("+3", 3),
        ("0o17", 15),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("22:22", "22:22"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("1e4", 1e4),
        ("synthesize@1", "synthesize@1"),
    ],
)
def test_scalars_follow_the_yaml_1_2_core_schema(text: str, value: object):
    found = read(f"a: {text}", "r.yaml").plain()["a"]

    assert (found, type(found)) == (value, type(value))


def test_every_key_and_every_value_has_a_place():
    tree = read("mix:\n  parts: {captions: 1}\nlist:\n  - a\n  - b: 2\n", "r.yaml")
    found = {place: (at.key, at.value) for place, at in places(tree).items()}

    assert found == {
        (): (None, Span("r.yaml", 1, 1)),
        ("mix",): (Span("r.yaml", 1, 1), Span("r.yaml", 2, 3)),
        ("mix", "parts"): (Span("r.yaml", 2, 3), Span("r.yaml", 2, 10)),
        ("mix", "parts", "captions"): (Span("r.yaml", 2, 11), Span("r.yaml", 2, 21)),
        ("list",): (Span("r.yaml", 3, 1), Span("r.yaml", 4, 3)),
        ("list", 0): (None, Span("r.yaml", 4, 5)),
        ("list", 1): (None, Span("r.yaml", 5, 5)),
        ("list", 1, "b"): (Span("r.yaml", 5, 5), Span("r.yaml", 5, 8)),
    }


def test_columns_count_characters_and_not_bytes():
    tree = read("título: {ö: 1}", "r.yaml")

    assert places(tree)[("título", "ö")].value == Span("r.yaml", 1, 13)


def test_several_mistakes_are_reported_at_once():
    text = "a: 1\na: 2\n<<: {b: 1}\nc: !!str 3\nd: *nowhere\ne: .nan\n? [x]\n: 1\n"

    assert codes_and_lines(text) == [
        ("duplicate-key", 2),
        ("merge-key", 3),
        ("tag", 4),
        ("alias", 5),
        ("number", 6),
        ("complex-key", 7),
    ]


def test_a_merge_key_points_to_extends():
    assert "extends" in (mistakes_of("<<: {a: 1}")[0].hint or "")


def test_a_quoted_merge_key_is_a_plain_key():
    assert read("'<<': 1", "r.yaml").plain() == {"<<": 1}


def test_a_mistake_before_a_syntax_error_is_still_reported():
    assert codes_and_lines("a: 1\na: 2\nb: [1\n") == [("duplicate-key", 2), ("syntax", 3)]


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("a:\n\tb: 1", 2, "indent with spaces"),
        ("a: b: c", 1, "quote a text"),
        ("a: {b: 1\nc: 2\n", 2, "bracket"),
        ("a: 1\n  b: 2\n", 2, "quote a text"),
        ("a: 'x\n", 1, "a quote that opens here"),
        ("a: \x00", 1, ""),
    ],
)
def test_syntax_errors_have_a_place_and_a_way_out(text: str, line: int, hint: str):
    (found,) = mistakes_of(text)

    assert (found.code, found.span.line if found.span else 0) == ("syntax", line)
    assert hint in (found.hint or "")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty-file"),
        ("# nothing\n", "empty-file"),
        ("a: 1\n---\nb: 2\n", "several-documents"),
        ("a: " + "[" * (MAX_DEPTH + 2), "too-deep"),
        ("a: " + "[" * 100_000, "too-deep"),
        ("a: &x [*x]", "alias"),
        ("a: 1e999", "number"),
        ("a: " + "9" * 5000, "number"),
        ("a: !!python/object:os.system {}", "tag"),
    ],
)
def test_what_a_recipe_cannot_be_is_refused(text: str, code: str):
    assert [d.code for d in mistakes_of(text)] == [code]


def test_an_alias_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    assert mistakes_of("\n".join(lines))[0].code == "too-many-values"


def test_an_alias_stands_for_its_anchor():
    tree = read("a: &x {b: 1}\nc: *x\n", "r.yaml")

    assert tree.plain() == {"a": {"b": 1}, "c": {"b": 1}}
    assert places(tree)[("c",)].value == Span("r.yaml", 2, 4)


def test_a_missing_file_and_a_file_of_bytes_are_refused(tmp_path: Path):
    with pytest.raises(RequestError, match="cannot read"):
        read_file(tmp_path / "none.yaml", "none.yaml")
    path = tmp_path / "r.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(RequestError) as caught:
        read_file(path, "r.yaml")

    assert caught.value.diagnostics[0].span == Span("r.yaml", 2, 4)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_bytes("\ufeffa: 1\r\nb: 2\r\n".encode())

    assert read_file(path, "r.yaml").plain() == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("a: {", "f.yaml:1:4", "the bracket that opens here is never closed"),
        ("a: [{b: [1\n\n", "f.yaml:1:9", "the bracket that opens here is never closed"),
        ('a: {b: "x\n', "f.yaml:1:8", "a quote that opens here is never closed"),
        ('"a', "f.yaml:1:1", "a quote that opens here is never closed"),
        ("a: [1,,2]", "f.yaml:1:7", "a value is missing here"),
        ("a: ]", "f.yaml:1:4", "closed that was not opened"),
        ("a: |x", "f.yaml:1:5", "begins with `|`"),
        ("a: *", "f.yaml:1:5", "begins with `&` or `*`"),
        ('a: "\\q"', "f.yaml:1:5", "single quotes"),
        ("- a\nb: c", "f.yaml:2:1", "a list and a key are mixed"),
    ],
)
def test_a_syntax_mistake_points_at_its_cause(text: str, place: str, hint: str):
    with pytest.raises(RequestError) as found:
        read(text, "f.yaml")
    (item,) = found.value.diagnostics

    assert (item.code, str(item.span)) == ("syntax", place)
    assert hint in str(item.hint)


def test_a_bracket_left_open_is_named_where_the_next_key_breaks_it():
    with pytest.raises(RequestError) as found:
        read("a: {b: 1\nc: {d: 2}\n", "f.yaml")
    (item,) = found.value.diagnostics

    assert str(item.span) == "f.yaml:2:2"
    assert [str(note) for note in item.notes] == ["f.yaml:1:4 is the bracket that is still open"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: \x07", "f.yaml:1:4"),
        ("ab: \u00e9\u00e9\x07", "f.yaml:1:7"),
        ("a: \U0001f600\nb: \x00", "f.yaml:2:4"),
        ("a: 1\rb: \x80", "f.yaml:2:4"),
    ],
)
def test_a_control_character_is_found_behind_any_letters(text: str, place: str):
    with pytest.raises(RequestError) as found:
        read(text, "f.yaml")
    (item,) = found.value.diagnostics

    assert (item.code, str(item.span)) == ("syntax", place)
    assert "remove the character U+00" in str(item.hint)
