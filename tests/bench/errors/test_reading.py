from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.bench.errors import page
from tests.bench.errors.mistakes import CORRECT, MISTAKES, text
from tests.bench.errors.reading import read, tidy
from tests.bench.errors.run import HERE, RESULTS

MISSPELT = MISTAKES[0]
FRAME = """\
Traceback (most recent call last):
  File "/somewhere/parser.py", line 9, in parse
    raise ValueError(unused)
ValueError: not used: ['warmup_ratoi']
"""
OURS = """\
error[unknown-key]: `warmup_ratoi` is not a key of `training`
  --> recipe.yaml:9:3
    9 |   warmup_ratoi: 0.1
      |   ^
  help: did you mean `warmup_ratio`?
"""
DVC = """\
extra keys not allowed, in stages -> second -> dpes, line 11, column 7
  10 \u2502   dpes:
  11 \u2502     - first.txt
"""


def results() -> Mapping[str, Any]:
    found = json.loads(RESULTS.read_text())
    return {name: found[name] for name in CORRECT if name in found}


def test_a_line_of_a_traceback_is_not_a_line_of_the_file():
    found = read("llamafactory", "train.yaml", MISSPELT, FRAME, 1)

    assert (found.named, found.has_line, found.has_traceback) == (1, False, True)


def test_every_part_of_a_full_message_is_seen():
    found = read("adapt", "recipe.yaml", MISSPELT, OURS, 1)

    assert found.named == 1
    assert all((found.has_line, found.has_column, found.has_excerpt, found.has_caret))
    assert found.has_offer


def test_a_message_that_points_below_the_key_still_counts():
    found = read("dvc", "dvc.yaml", MISSPELT, DVC, 255)

    assert (found.has_line, found.has_column, found.has_excerpt) == (True, True, True)
    assert not found.has_caret


def test_a_tool_that_accepts_a_mistake_tells_nothing_of_it():
    found = read("axolotl", "train.yaml", MISSPELT, '"warmup_ratoi": 0.1', 0)

    assert (found.is_refused, found.named) == (False, 0)


def test_folders_of_a_machine_are_not_shown():
    said = tidy("2026-01-02 03:04:05,678 /home/me/work/train.yaml is wrong", {"/home/me/work": "."})

    assert said == " ./train.yaml is wrong"


def test_every_mistake_is_made_in_our_recipe():
    assert all(text("adapt", mistake) != CORRECT["adapt"] for mistake in MISTAKES)


def test_every_tool_that_can_make_a_mistake_was_asked():
    found = results()

    asked = {name: list(tool["mistakes"]) for name, tool in found.items()}
    able = {n: sorted(m.name for m in MISTAKES if n in m.edits) for n in found}
    assert {name: sorted(names) for name, names in asked.items()} == able


def test_the_page_is_written_from_the_results():
    assert (HERE / "README.md").read_text() == page.written(results())
