"""Every stage that works in shards, on small data, and a backend that answers by a rule."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact, Outputs
from engine.backends import Backend, Completion, Request, Sampling
from engine.filters import decontaminate
from engine.plan.stage import Stage
from engine.records import Kind, Meta, pair
from engine.stages import _filtering, _intake, collect, curate, evaluate, generate
from engine.stages import filter as filter_stage
from tests.filters.building import artifact, published
from tests.sources.building import picture
from tests.stages.talking import (
    Answering,
    a_question,
    a_task,
    dialogue_turns,
    prompt_texts,
    rows_artifact,
    said,
)

NUM_ROWS = 48
ANSWER_S = 0.002
Inputs = Mapping[str, Mapping[str, Artifact]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams:
    """The fake backend has no settings."""


class Fake(Answering):
    """Answers by a digest of what it is asked, and notes every question in a file."""

    notes: Path | None = None  # where questions are noted; None: it answers at once

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        asked = " / ".join(turn.text for turn in request.turns)
        if self.notes is not None:
            with self.notes.open("a") as notes:
                notes.write(json.dumps(asked) + "\n")
            time.sleep(ANSWER_S)
        chance = int(hashlib.sha256(asked.encode()).hexdigest(), 16)
        if request.opens == "assistant":
            return said(("Yes", "No", "42", "")[chance % 4])
        return said(
            *dialogue_turns(
                "Answer with a precise response.\nWhat?",
                f"a cat {chance % 7}",
                "Answer with an informative response.\nWhat?",
                "It has whiskers." if chance % 5 else "",
            )
        )

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Case:
    """A stage on small data, with shards of a few rows."""

    stage: Stage
    params: Mapping[str, Any]
    inputs: Callable[[Path], Inputs]


def _pairs(folder: Path) -> Artifact:
    shown = [picture(number % 30) for number in range(NUM_ROWS)]
    return artifact(folder / "pairs", [(f"p{n}", p, f"Caption {n}.") for n, p in enumerate(shown)])


def _curate_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    shown = [(f"q{number}", picture(number * 7), "x") for number in range(12)]
    benchmark = artifact(folder / "benchmark", shown)
    return {"pairs": {"p": pairs}, "images": {"p": pairs}, "benchmarks": {"b": benchmark}}


def _task_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    tasks = [a_task(pair, number) for number, pair in enumerate(pairs.records("rows"))]
    return {"tasks": {"t": rows_artifact(folder / "tasks", tasks=tasks)}, "images": {"p": pairs}}


def _pair_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    rows = rows_artifact(folder / "curated", pairs=list(pairs.records("rows")))
    return {"pairs": {"p": rows}, "images": {"p": pairs}}


def _question_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    questions = [
        a_question(pair.images[0], f"How many in {number}?", "4", name=pair.meta.source_id)
        for number, pair in enumerate(pairs.records("rows"))
    ]
    rows = rows_artifact(folder / "questions", rows=questions)
    return {"items": {"i": rows}, "images": {"p": pairs}}


def with_many_rows(name: str, folder: Path, num_rows: int) -> Inputs:
    """Return inputs of a case with many long rows about one picture, made without holding them."""
    pictures = artifact(folder / "pictures", [("p", picture(), "x")])
    (shown,) = pictures.records("rows")
    outputs = Outputs(folder)
    for number in range(num_rows):
        text = f"Number {number}. " + "and so on " * 300
        one = pair(shown.images[0], text, Meta(Kind.PAIR, f"p{number}"))
        match name:
            case "curate":
                outputs.rows("rows").write(one)
            case "generate":
                outputs.rows("pairs").write(one)
            case "filter":
                outputs.rows("tasks").write(a_task(one, number))
            case "evaluate.answers":
                question = a_question(shown.images[0], text, "4", name=f"p{number}")
                outputs.rows("rows").write(question)
    made = published(outputs)
    (port, *_) = (port.name for port in CASES[name].stage.inputs if port.name != "images")
    return {port: {"r": made}, "images": {"i": pictures}}


def _no_inputs(folder: Path) -> Inputs:
    (folder / "pictures").mkdir()
    for number in range(NUM_ROWS):
        content = b"broken" if number % 9 == 4 else picture(number % 30)
        (folder / f"pictures/{number:02d}.png").write_bytes(content)
        (folder / f"pictures/{number:02d}.txt").write_text(f"Caption {number}.")
    return {}


MODEL = {"model": "m", "backend": {"use": "vllm"}}
CASES = {
    "collect": Case(
        collect.STAGE, {"source": {"use": "image_folder", "path": "pictures"}}, _no_inputs
    ),
    "curate": Case(
        curate.STAGE,
        {
            "filters": [
                {"use": "image_size", "min_side_px": 8},
                {"use": "near_duplicate", "max_distance_bits": 4},
                {"use": "decontaminate", "max_distance_bits": 0},
            ]
        },
        _curate_inputs,
    ),
    "generate": Case(
        generate.STAGE,
        {
            "generator": MODEL,
            "prompt": "synthesize@1",
            "max_new_tokens": 8,
            "temperature": 0.7,
            "top_p": 1.0,
            "answer_temperature": 0.0,
            "num_tasks": 1,
            "num_samples": 1,
            "task_types": {},
            "row_set": "pairs",
        },
        _pair_inputs,
    ),
    "filter": Case(
        filter_stage.STAGE,
        {
            "filters": [
                {"use": "near_duplicate"},
                {"use": "consistency", "judge": MODEL},
                {"use": "near_duplicate", "max_distance_bits": 4},
            ]
        },
        _task_inputs,
    ),
    "evaluate.answers": Case(
        evaluate.ANSWERS,
        {
            "model": MODEL,
            "benchmark": "b",
            "prompt": "bare@1",
            "caption_prompt": "caption@1",
            "max_new_tokens": 8,
            "max_items": None,
            "row_set": "rows",
        },
        _question_inputs,
    ),
}


def set_up(shard: int) -> None:
    """Cut everything into shards of a few rows, and put the fake in the place of a backend."""
    import imagehash  # noqa: F401  # loaded once, not by every attempt
    import pyarrow.ipc  # noqa: F401
    from PIL import Image

    Image.init()
    _intake.SPAN_ROWS = _filtering.SHARD_ROWS = decontaminate.SHARD_IMAGES = shard
    generate.SHARD_PAIRS = evaluate.SHARD_ITEMS = shard
    fake = types.ModuleType("fake")
    fake.PLUGIN = Backend(1, NoParams, lambda files, params, machine: Fake())  # type: ignore[attr-defined]
    sys.modules["engine.backends.vllm"] = fake


def prompts() -> dict[str, str]:
    """Return the templates that the cases use."""
    return prompt_texts() | {"consistency@2": "{{ instruction }}"}
