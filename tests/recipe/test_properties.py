"""Random edits of shipped recipes: nothing crashes, nothing is slow, every place is a place."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import package_data
from engine.diagnostics import Diagnostic, RequestError, Span
from engine.recipe.load import load_experiment
from engine.recipe.source import Node, places, read

RECIPES = sorted(package_data.folder("recipes").glob("*.yaml"))
TEXTS = [path.read_text("utf-8") for path in RECIPES]
SLOW_S = 2.0
FIXED = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

snippets = st.sampled_from(
    [
        *(
            "{",
            "}",
            "[",
            "]",
            ":",
            ": ",
            "- ",
            "#",
            "&a",
            "*a",
            "<<",
            "!!str",
            "|",
            ">",
            "---",
            "...",
        ),
        *("null", "no", "010", "1e-4", ".inf", "9" * 400, "${seed}", "${a.b}", "${x:y}", '"', "'"),
        *("use: hub", "use: nothing", "matrix: {a: {seed: 1}}", "extends: quickstart.yaml", "\t"),
        *("é", "\u2028", "\U0001f600", "\x85", "\ufeff", "a: 1", "training: 3", "base: []"),
    ]
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete line", "double line", "swap lines"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.one_of(snippets, st.text(max_size=8)),
    ),
    min_size=1,
    max_size=6,
)


def edited(text: str, edit: tuple[str, float, float, str]) -> str:
    """Apply one edit at a place given as a share of the text."""
    kind, share, other, snippet = edit
    if kind == "insert":
        at = int(share * (len(text) + 1))
        return text[:at] + snippet + text[at:]
    if kind == "replace":
        start = int(share * (len(text) + 1))
        return text[:start] + snippet + text[start + int(other * 12) :]
    lines = text.split("\n")
    first, second = int(share * len(lines)), int(other * len(lines))
    if kind == "delete line":
        del lines[first]
    elif kind == "double line":
        lines.insert(second, lines[first])
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)


def told(path: Path) -> tuple[Diagnostic, ...]:
    try:
        load_experiment(path)
    except RequestError as error:
        return error.diagnostics
    return ()


def is_place(span: Span | None, path: Path) -> bool:
    """Tell whether a place in the edited file is one that an editor can show."""
    if span is None or Path(span.file).name != path.name or span.line == 0:
        return True
    rows = path.read_text("utf-8", errors="replace").splitlines() or [""]
    return 0 < span.line <= len(rows) and 0 < span.column <= len(rows[span.line - 1]) + 1


def are_places(item: Diagnostic, path: Path) -> bool:
    """Tell whether a mistake and its notes stand in the text of the edited file."""
    return all(is_place(span, path) for span in (item.span, *(n.span for n in item.notes)))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edited") / "edited_recipe.yaml"


@FIXED
@given(text=st.sampled_from(TEXTS), changes=edits)
def test_an_edited_recipe_is_loaded_or_refused_with_places(path: Path, text: str, changes):
    for change in changes:
        text = edited(text, change)
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    started = time.process_time()
    found = told(path)

    assert time.process_time() - started < SLOW_S
    assert [item for item in found if not are_places(item, path)] == []


@FIXED
@given(blob=st.binary(max_size=200))
def test_any_bytes_are_loaded_or_refused_with_places(path: Path, blob: bytes):
    path.write_bytes(blob)

    assert [item for item in told(path) if not are_places(item, path)] == []


@FIXED
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str):
    with suppress(RequestError):
        read(text, "f.yaml")


@pytest.mark.parametrize("text", TEXTS, ids=[path.stem for path in RECIPES])
def test_every_place_points_at_text_that_parses_back_to_the_value(text: str):
    root = read(text, "f.yaml")
    lines = text.split("\n")

    for place, located in places(root).items():
        if located.key is not None:
            rest = lines[located.key.line - 1][located.key.column - 1 :]
            assert str(place[-1]) in rest[: len(str(place[-1])) + 2]
        node = _at(root, place)
        if located.is_scalar and not isinstance(node.value, str):
            rest = lines[located.value.line - 1][located.value.column - 1 :]
            word = rest.split(",")[0].split("}")[0].split("]")[0].split(" #")[0].strip()
            assert read(f"a: {word}", "f").entries()["a"].node.value == node.value
        elif located.is_scalar:
            rest = lines[located.value.line - 1][located.value.column - 1 :]
            assert str(node.value)[:12] in rest


@FIXED
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**12), 10**12)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=12),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text("abcdef_", min_size=1, max_size=5), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_json_reads_back_as_itself(value: object):
    import json

    assert read(json.dumps({"a": value}, ensure_ascii=False), "f").plain() == {"a": value}


def _at(node: Node, place: tuple[str | int, ...]) -> Node:
    for step in place:
        if isinstance(node.value, dict):
            node = node.value[str(step)].node
        else:
            assert isinstance(node.value, tuple)
            node = node.value[int(step)]
    return node
