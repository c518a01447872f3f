"""What a benchmark asks: one item per question, with an id of its own and its image as cluster.

Items come from a benchmark's rows, or from the held-out pairs: then every pair gives a caption
question, and every kept task of a held-out pair a question whose reference is its precise answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine import prompts
from engine.artifacts import Artifact
from engine.records import ImagePart, Kind, Meta, Record, Turn, assistant, make_record, user

CAPTION, TASK = "caption", "task"
KEPT = "kept"  # the row set of filtered tasks
DEFAULT_TYPE = "question"


@dataclass(frozen=True, slots=True)
class Item:
    """One question as it is put to a model."""

    id: str  # unique in its benchmark
    question: Record
    turn: Turn  # the rendered user turn

    @property
    def answer_type(self) -> str:
        """Return the kind of answer that is wanted, which chooses the metric."""
        return str(self.question.meta.extra.get("answer_type", DEFAULT_TYPE))

    @property
    def cluster(self) -> str:
        """Return what items share that are not independent: their image, unless the row says."""
        named = self.question.meta.extra.get("cluster")
        return str(named or "+".join(self.question.images) or self.id)

    def to_row(self) -> dict[str, Any]:
        """Return the part of an answer row that does not depend on the model."""
        question = self.question
        return {
            "id": self.id,
            "source_id": question.meta.source_id,
            "question": question.instruction,
            "references": list(question.references),
            "options": list(question.meta.extra.get("options") or ()),
            "answer_type": self.answer_type,
            "cluster": self.cluster,
            "images": list(question.images),
            "prompt_digest": prompts.digest(self.turn.text),
        }


def question_from_row(row: Mapping[str, Any]) -> Record:
    """Return the question of an answer row, as scorers want it; its id is the item's."""
    extra = {"answer_type": row["answer_type"], "options": row["options"]}
    turns = (user(row["question"]), *(assistant(text) for text in row["references"]))
    return Record(row["id"], (), turns, Meta(Kind.QUESTION, row["source_id"], extra=extra))


def items_of(questions: Iterable[Record], template: str) -> Iterator[Item]:
    """Render questions; two that are equal but for their options get ids of their own."""
    seen: Counter[str] = Counter()
    for question in questions:
        seen[question.id] += 1
        repeat = f"-{seen[question.id]}" if seen[question.id] > 1 else ""
        yield Item(question.id + repeat, question, _rendered(question, template))


def holdout_questions(
    pairs: Artifact, row_set: str, tasks: Artifact | None, caption_template: str
) -> Iterator[Record]:
    """Yield a caption question per held-out pair and a question per kept held-out task."""
    request = prompts.render(caption_template, variant=0)
    for pair in pairs.records(row_set):
        turns = (user(ImagePart(0), request), assistant(pair.caption))
        yield make_record(pair.images, turns, _meta(pair, CAPTION))
    for task in tasks.records(KEPT) if tasks is not None else ():
        turns = (user(ImagePart(0), task.instruction), assistant(task.answer("precise")))
        yield make_record(task.images, turns, _meta(task, TASK))


def _meta(record: Record, answer_type: str) -> Meta:
    extra = {"answer_type": answer_type}
    return Meta(Kind.QUESTION, record.meta.source_id, record.meta.licence, (record.id,), extra)


def _rendered(question: Record, template: str) -> Turn:
    """Return the user turn; images stand in front unless the prompt leaves the turn as it is."""
    asked = question.turns[0]
    text = prompts.render(
        template,
        question=asked.text.strip(),
        options=list(question.meta.extra.get("options") or ()),
        answer_type=question.meta.extra.get("answer_type", DEFAULT_TYPE),
    )
    if text == asked.text:
        return asked
    return user(*(part for part in asked.parts if isinstance(part, ImagePart)), text)
