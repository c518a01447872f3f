"""A session that answers by a rule, and the pairs and tasks that stages put to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import package_data
from engine.artifacts import Artifact, Manifest, Outputs
from engine.backends import Choices, Completion, Flow, Likelihoods, Request, Result, Sampling
from engine.backends import _lockstep as lockstep
from engine.images import ImageBank, ImageWriter
from engine.records import ImagePart, Kind, Meta, Record, Turn, assistant, make_record, pair, user
from tests.sources.building import picture

PROMPT_NAMES = (
    *("synthesize", "write_tasks", "caption", "combine"),
    *("bare", "brief", "choice", "choices"),
)


def prompt_texts() -> dict[str, str]:
    folder = package_data.folder("prompt_templates")
    return {f"{n}@1": (folder / n / "v1.j2").read_text(encoding="utf-8") for n in PROMPT_NAMES}


class Answering:
    """Scores and runs flows by what `generate` answers."""

    is_continuous = False

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        raise NotImplementedError

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        done = self.generate([one.request for one in asked], Sampling(1))
        return [_likelihoods(one, says) for one, says in zip(asked, done, strict=True)]

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        return lockstep.run(self, flows)


@dataclass
class FakeSession(Answering):
    """Answers each request by `rule`; remembers the requests."""

    rule: Callable[[Request], Completion]
    asked: list[Request] = field(default_factory=list)
    is_closed: bool = False

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.asked += requests
        return [self.rule(request) for request in requests]

    def close(self) -> None:
        self.is_closed = True


def _likelihoods(asked: Choices, done: Completion) -> Likelihoods:
    """Return which choice an answer is: nearly certain; another answer makes none likely."""
    if done.finish == "error":
        return Likelihoods((), error=done.error)
    likely = [0.9 if one.strip() == done.text.strip() else 0.01 for one in asked.choices]
    return Likelihoods(tuple(math.log(value) for value in likely))


def said(*turns: Turn | str, finish: str = "stop", error: str | None = None) -> Completion:
    made = tuple(assistant(turn) if isinstance(turn, str) else turn for turn in turns)
    return Completion(made, 10, len(made), finish, error)


def dialogue_turns(*pieces: str) -> tuple[Turn, ...]:
    """Return turns that alternate between user and assistant, the user first."""
    return tuple(assistant(p) if i % 2 else user(p) for i, p in enumerate(pieces))


def published(outputs: Outputs) -> Artifact:
    manifest = Manifest("key", "stage", (), outputs.counts(), (), {}, "digest")
    return Artifact(outputs.path, manifest)


def rows_artifact(folder: Path, **row_sets: Sequence[Record | Mapping[str, Any]]) -> Artifact:
    folder.mkdir(parents=True)
    outputs = Outputs(folder)
    for name, rows in row_sets.items():
        for row in rows:
            outputs.rows(name).write(row)
    return published(outputs)


def image_bank(folder: Path, num: int) -> tuple[ImageBank, list[str]]:
    """Return a bank of different pictures and their digests."""
    folder.mkdir(parents=True)
    with ImageWriter(folder) as writer:
        digests = [writer.add(picture(n)) for n in range(num)]
    return ImageBank([folder]), digests


def a_pair(number: int, image: str | None = None) -> Record:
    return pair(image or f"{number:064x}", f"Caption {number}.", Meta(Kind.PAIR, f"p{number}"))


def a_task(of: Record, number: int = 0) -> Record:
    turns = (
        user(ImagePart(0), f"Question {number}?"),
        assistant(f"Reasoning {number}.", style="informative"),
        assistant(f"result {number}", style="precise"),
    )
    return make_record(of.images, turns, Meta(Kind.TASK, of.meta.source_id, lineage=(of.id,)))


def a_question(image: str, text: str, *references: str, name: str = "q", **extra: Any) -> Record:
    turns = (user(ImagePart(0), text), *(assistant(r) for r in references))
    return make_record((image,), turns, Meta(Kind.QUESTION, name, extra=extra))


def answer_row(item_id: str, answer: str, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": item_id,
        "source_id": f"s-{item_id}",
        "question": "How many?",
        "references": ["5"],
        "options": [],
        "answer_type": "count",
        "cluster": f"image-{item_id}",
        "images": [f"image-{item_id}"],
        "prompt_digest": "d",
        "answer": answer,
        "finish": "stop",
        "error": None,
        "num_new_tokens": 3,
    }
    return json.loads(json.dumps(row | changes))
