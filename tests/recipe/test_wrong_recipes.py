"""Each file of tests/wrong_recipes, with the exact text that must be printed for it.

`python -m tests.recipe.test_wrong_recipes` rewrites the texts after a change on purpose; read the
diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.cli.errors import read_text
from engine.diagnostics import RequestError, render
from engine.recipe.load import load_experiment

ROOT = Path(__file__).parent.parent.parent
FOLDER = Path("tests/wrong_recipes")
CASES = sorted(path.stem for path in (ROOT / FOLDER).glob("*.yaml"))


def printed(case: str) -> str:
    """Return what `adapt validate` prints for a wrong recipe; run in the root of the checkout."""
    try:
        load_experiment(FOLDER / f"{case}.yaml")
    except RequestError as error:
        return render(error.diagnostics, read_text) + "\n"
    return "nothing is wrong\n"


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_recipe_prints_exactly_this(case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)

    assert printed(case) == (FOLDER / f"{case}.txt").read_text("utf-8")


def test_there_is_a_text_for_each_wrong_recipe_and_no_other():
    assert sorted(path.stem for path in (ROOT / FOLDER).glob("*.txt")) == CASES


if __name__ == "__main__":
    os.chdir(ROOT)
    for name in CASES:
        (FOLDER / f"{name}.txt").write_text(printed(name), encoding="utf-8")
