from __future__ import annotations

import pytest

from engine.recipe.layout import tidied


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1  \nb: 2\t\n", "a: 1\nb: 2\n"),
        ("a: 1", "a: 1\n"),
        ("a: 1\n\n\n\nb: 2\n\n\n", "a: 1\n\nb: 2\n"),
        ("a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("\ufeffa: 1\n", "a: 1\n"),
        ("a:\n\tb: 1\n", "a:\n  b: 1\n"),
        ("\n\na: 1  # why\n# a comment  \n", "a: 1  # why\n# a comment\n"),
    ],
)
def test_white_space_is_tidied_and_comments_stay(text: str, wanted: str):
    assert tidied(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "a: |\n  text  \n  more\n",
        "a: |+\n  text\n\n\nb: 1\n",
        "a: 'x\n\n\n\n  y'\n",
    ],
)
def test_a_text_whose_value_would_change_is_left_alone(text: str):
    assert tidied(text) == text


def test_what_cannot_be_mended_is_left_alone():
    assert tidied("a: [1  \n") == "a: [1  \n"


@pytest.mark.parametrize("text", ["a: 1\n", "a:\n  - 1\n\nb: 2\n"])
def test_a_tidy_text_stays_as_it_is(text: str):
    assert tidied(text) == text
