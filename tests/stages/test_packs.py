"""The twelve published benchmarks, from rows in the columns of their packs to scores.

The packs hold `image`, `input` and `label`; `answer_type` for SLAKE, PathVQA and VQA-RAD, `A` to
`D` for PMC-VQA; `label` is a list for FoodSeg103, Nutrition5K and here for NWPU-Captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine import package_data
from engine.artifacts import Artifact, Inputs, Outputs
from engine.diagnostics import Span, StageError
from engine.images import ImageBank
from engine.plugin import ModelUse
from engine.recipe.benchmarks import Shelf
from engine.recipe.model import BenchmarkSpec
from engine.stages import collect, evaluate
from engine.stages.evaluate import AnswersParams, expected_items, write_answers
from tests.sources.building import picture
from tests.stages.running import Bench
from tests.stages.talking import FakeSession, prompt_texts, published, said

GUESS = -1.0  # an option drawn at random


@dataclass(frozen=True)
class Row:
    """A row of a pack, what a model says to it, and what that is worth by either rule book."""

    label: Any
    answer: str
    paper: float
    strict: float
    more: Mapping[str, str]  # other columns


def row(label: Any, answer: str, paper: float, strict: float, **more: str) -> Row:
    return Row(label, answer, paper, strict, more)


MEDICAL = (
    row("MRI", "It is an MRI.", 1, 1, answer_type="OPEN"),
    row("lung heart", "lung lung lung lung", 0.8, 1 / 3, answer_type="OPEN"),
    row("no", "Normal chest", 1, 0, answer_type="CLOSED"),
    row("left", "left", 0, 1, answer_type="CLOSED"),
)
OPTIONS = {"A": "MRI", "B": "CT", "C": "X-ray", "D": "PET"}
CAPTIONS = ("A long runway beside green fields.", "An airport with two planes.", "a b c")
PACKS = {
    "slake": MEDICAL,
    "pathvqa": MEDICAL,
    "vqa_rad": MEDICAL,
    "pmc_vqa": (
        row("B", "(B)", 1, 1, **OPTIONS),
        row("D", "The answer is **D**", GUESS, 1, **OPTIONS),
        row("A", "I think option C, not A", 1, 0, **OPTIONS),
        row("C", "It is blurred", GUESS, 0, **OPTIONS),
    ),
    "recipe1m": (
        row("a b c", "a b a b a b c", 1, 0.6),
        row("mix flour and eggs", "mix flour and eggs", 1, 1),
        row("bake it", ".", 0, 0),
        row("boil rice", "fry fish", 0, 0),
    ),
    "nutrition5k": (
        row(["rice", "egg"], "rice, egg", 1, 1),
        row(["egg"], "rice, egg, milk, bread", 1, 0.4),
        row(["milk"], "I cannot tell.", 0, 0),
        row(["bread", "rice"], "['bread']", 0.5, 2 / 3),
    ),
    "food101": (
        row("apple_pie", "This is apple pie.", GUESS, 1),
        row("waffles", "waffles", 1, 1),
        row("sushi", "There are 0 or more pieces of sushi", 0, 1),
        row("pizza", "pizza or sushi", 0, 0),
    ),
    "foodseg103": (
        row(["rice"], "licorice", 1, 0),
        row(["egg", "rice"], "['rice', 'egg']", 1, 1),
        row(["red apple"], "A red apple and an egg", 2 / 3, 2 / 3),
        row(["egg", "other ingredients"], "egg", 1, 2 / 3),
    ),
    "clrs": (
        row("beach", "A beach.", 1, 1),
        row("storage-tank", "storage tank", GUESS, 1),
        row("railway", "railway-station", 1, 0),  # the shorter name stands at the same place
        row("railway-station", "The category is railway-station", 0, 1),
    ),
    "uc_merced": (
        row("dense residential", "dense residential", 1, 1),
        row("medium residential", "It shows medium residential houses.", 1, 1),
        row("river", "I see nothing", GUESS, 0),
        row("forest", "forest or river", 0, 0),
    ),
    "floodnet": (
        row("yes", "Yes, the road is flooded.", 1, 1),
        row("4", "There are four buildings.", 1, 1),
        row("flooded", "The road is flooded", 1, 0),
        row("non flooded", "flooded", 0, 0),
    ),
    "nwpu_captions": (
        row(list(CAPTIONS), "An airport with two planes.", 1, 1),
        row(list(CAPTIONS), "a b a b a b c", 1, 0.6),
        row(list(CAPTIONS), "dogs", 0, 0),
        row("a b c", "a b c", 1, 1),
    ),
}


def spec_of(name: str) -> BenchmarkSpec:
    return Shelf(package_data.folder("recipes")).find(name, Span("here", 1, 1)).spec


def saved(folder: Path, rows: Sequence[Row]) -> None:
    """Save rows as a pack has them."""
    import datasets

    table = [
        {
            "image": {"bytes": picture(number), "path": None},
            "input": f"Question {number}?",
            "label": [given.label] if as_list and isinstance(given.label, str) else given.label,
            **given.more,
        }
        for as_list in [any(isinstance(given.label, list) for given in rows)]
        for number, given in enumerate(rows)
    ]
    image = {"image": datasets.Image()}
    features = datasets.Dataset.from_list(table[:1]).features | image
    (folder / "pack").mkdir()
    kept: Any = datasets.Dataset.from_list(table, features=datasets.Features(features))
    kept.to_parquet(folder / "pack" / "test-00000-of-00001.parquet")


def collected(folder: Path, spec: BenchmarkSpec, expected: Any = None) -> Artifact:
    settings = {**spec.source.settings, "dataset": "./pack", "config": None}
    source = {"use": spec.source.name, **settings}
    return Bench(folder).run(collect.STAGE, {"source": source, "expected": expected})


def answered(
    folder: Path, spec: BenchmarkSpec, items: Artifact, said_to: Sequence[str]
) -> Artifact:
    params = AnswersParams(
        model=ModelUse(model="m"),
        benchmark=spec.name,
        prompt=spec.prompt,
        caption_prompt="caption@1",
        max_new_tokens=spec.max_new_tokens,
        max_items=None,
        row_set="rows",
    )
    asked = expected_items(Inputs({"items": {"i": items}}), params, prompt_texts())
    outputs = Outputs(folder / "answers")
    outputs.path.mkdir()
    queue = iter(said_to)
    session = FakeSession(lambda request: said(next(queue)))
    tools = Bench(folder).tools("answers")
    write_answers(asked, ImageBank([items.path]), session, params, outputs, tools)
    outputs.counts()
    return published(outputs)


def scored(folder: Path, spec: BenchmarkSpec, answers: Artifact, scorer: str) -> Artifact:
    params = {
        "scorer": scorer,
        "scorer_version": 1,
        "metric": spec.metric,
        "metric_by_type": dict(spec.metric_by_type),
        "options": spec.options,
        "expected": None,
        "benchmark": spec.name,
    }
    inputs = {"base": {"b": answers}, "adapted": {"a": answers}}
    return Bench(folder).run(evaluate.SCORES, params, inputs)


@pytest.mark.parametrize("name", sorted(PACKS))
def test_a_pack_is_read_asked_and_scored_by_both_rule_books(name: str, tmp_path: Path) -> None:
    pytest.importorskip("rouge", reason="the package `rouge` is an extra")
    rows, spec = PACKS[name], spec_of(name)
    saved(tmp_path, rows)

    items = collected(tmp_path, spec)
    answers = answered(tmp_path, spec, items, [given.answer for given in rows])
    for scorer in ("paper", "strict"):
        found = list(scored(tmp_path, spec, answers, scorer).rows("items"))
        wanted = [getattr(given, scorer) for given in rows]
        guesses = [item["base_extra"].get("guessed") == 1.0 for item in found]
        values = [GUESS if g else item["base"] for g, item in zip(guesses, found, strict=True)]
        assert values == pytest.approx(wanted, abs=1e-6), scorer


def test_the_choices_of_pmc_vqa_are_asked_for(tmp_path: Path) -> None:
    spec = spec_of("pmc_vqa")
    saved(tmp_path, PACKS["pmc_vqa"])
    items = collected(tmp_path, spec)

    params = {"benchmark": spec.name, "prompt": spec.prompt, "caption_prompt": "caption@1"}
    asked = expected_items(
        Inputs({"items": {"i": items}}),
        AnswersParams(
            model=ModelUse(model="m"), max_new_tokens=1, max_items=None, row_set="rows", **params
        ),
        prompt_texts(),
    )

    first = next(iter(asked.items()))
    assert first.turn.text == "Question 0?\nThe choices are: A: MRI, B: CT, C: X-ray, D: PET"


def test_a_pack_with_another_number_of_items_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, MEDICAL)
    spec = spec_of("slake")
    expected = {"benchmark": "slake", "items": {"total": 5, "open": 2, "closed": 3}}

    with pytest.raises(StageError) as caught:
        collected(tmp_path, spec, expected)

    assert str(caught.value) == (
        "benchmark `slake` has 4 items, not 5 and 2 items of type `closed`, not 3"
    )
    assert "benchmarks/slake.yaml" in str(caught.value.hint)


def test_a_pack_with_the_right_number_is_taken(tmp_path: Path) -> None:
    saved(tmp_path, MEDICAL)
    expected = {"benchmark": "slake", "items": {"total": 4, "open": 2, "closed": 2}}

    assert collected(tmp_path, spec_of("slake"), expected).num_rows("rows") == 4


def test_rows_that_were_lost_are_named_as_lost(tmp_path: Path) -> None:
    saved(tmp_path, (*MEDICAL, row("", "no answer", 0, 0, answer_type="OPEN")))

    with pytest.raises(StageError, match="has 4 items, not 5; 1 rows are in its quarantine"):
        collected(tmp_path, spec_of("slake"), {"benchmark": "slake", "items": {"total": 5}})


def test_scores_of_a_part_of_a_benchmark_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, MEDICAL)
    spec = replace(spec_of("slake"), expected_items={"total": 1061})
    answers = answered(tmp_path, spec, collected(tmp_path, spec), [r.answer for r in MEDICAL])
    params = {
        "scorer": "strict",
        "scorer_version": 1,
        "metric": "open",
        "metric_by_type": {},
        "options": "question",
        "expected": {"benchmark": "slake", "items": spec.expected_items},
        "benchmark": "slake",
    }

    with pytest.raises(StageError, match="has 4 items, not 1,061"):
        Bench(tmp_path).run(
            evaluate.SCORES, params, {"base": {"b": answers}, "adapted": {"a": answers}}
        )
