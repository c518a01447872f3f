"""How a generator writes tasks about one pair: the flows of the stage `generate`.

A template that knows `turn` is a *dialogue*: the model was tuned to go on with questions and
answers of its own after the caption turn (`engine.training.dialogue`). Any other template is an
*order*: an untuned model is told in one turn what to write, and has to answer with JSON of
a given schema.

Several samples of one pair are drawn one after the other, and no more than are needed: the first
that brings the wanted number of different tasks ends it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine import prompts
from engine.backends import Ask, Completion, Flow, Request, Sampling
from engine.images import ImageBank
from engine.recipe.prompts import variables
from engine.records import ImagePart, Record, as_unicode, user
from engine.stages import _task_types
from engine.stages._models import drawn
from engine.training import dialogue
from engine.training.dialogue import NoTask, Task, fault_of

FAILED = "the request failed"
CUT = "the output was cut at max_new_tokens"
NOT_JSON = "not the JSON that was asked for"
DOUBLE = "the same task was written before"
FIELDS = ("instruction", "informative", "precise")
RAW_CHARS = 8000  # of an output that the ledger shows
_ARRAY_STARTS = re.compile(r'\s*(?:```(?:json)?\s*)?\{\s*"tasks"\s*:\s*\[\s*')
_COMMA = re.compile(r"\s*,\s*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of the generator, about any pair."""

    template: str
    num_tasks: int
    num_samples: int
    max_new_tokens: int
    temperature: float
    top_p: float
    answer_temperature: float | None
    task_types: Mapping[str, float]
    seed: int

    @property
    def is_dialogue(self) -> bool:
        """Tell whether the template is one of a tuned synthesizer."""
        return "turn" in variables(self.template)

    def sampling(self, draw: int, json_schema: str | None = None) -> Sampling:
        """Return how the n-th sample of a pair is drawn."""
        seed = drawn(self.seed, draw)
        return Sampling(self.max_new_tokens, self.temperature, seed, self.top_p, json_schema)


def flow(pair: Record, bank: ImageBank, wanted: Wanted) -> Flow[dict[str, Any]]:
    """Write tasks about a pair; return the journal row: `tasks`, `failures` and `num_outputs`."""
    found = _Found(wanted.num_tasks)
    images = tuple(bank.encoded(digest) for digest in pair.images)
    for draw in range(wanted.num_samples):
        if found.is_enough:
            break
        if wanted.is_dialogue:
            yield from _from_dialogue(pair, images, wanted, draw, found)
        else:
            yield from _from_order(pair, images, wanted, draw, found)
    return found.row()


class _Found:
    """What came of a pair so far."""

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks
        self.num_outputs = 0
        self.num_texts = 0
        self.tasks: list[dict[str, Any]] = []
        self.failures: list[dict[str, str]] = []
        self._kept: set[str] = set()  # the words of their instructions

    @property
    def is_enough(self) -> bool:
        return len(self.tasks) >= self.num_tasks

    def note(self, completion: Completion) -> None:
        self.num_outputs += 1
        self.num_texts += any(turn.text.strip() for turn in completion.turns)

    def new(self, tasks: Sequence[Task]) -> list[Task]:
        """Return the tasks that differ from each other and from all that were kept."""
        by_words: dict[str, Task] = {}
        for task in tasks:
            by_words.setdefault(_words(task.instruction), task)
        return [task for words, task in by_words.items() if words not in self._kept]

    def keep(self, task: Task, draw: int, raw: str, task_type: str | None = None) -> None:
        self._kept.add(_words(task.instruction))
        row = {"instruction": task.instruction, "informative": task.informative}
        self.tasks.append({**row, "precise": task.precise, "draw": draw, "raw": raw[:RAW_CHARS]})
        if task_type is not None:
            self.tasks[-1]["task_type"] = task_type

    def fail(self, reason: str, detail: str) -> None:
        self.failures.append({"reason": reason, "detail": as_unicode(detail)[:RAW_CHARS]})

    def row(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "failures": self.failures,
            "num_outputs": self.num_outputs,
            "num_texts": self.num_texts,
        }


def _words(instruction: str) -> str:
    return " ".join(re.findall(r"\w+", instruction.casefold()))


def _from_dialogue(
    pair: Record, images: tuple[bytes, ...], wanted: Wanted, draw: int, found: _Found
) -> Flow[None]:
    told = dialogue.generation_turns(pair, wanted.template)
    asked = Request(told, images, "user")
    done: Completion = yield Ask(asked, wanted.sampling(draw))
    found.note(done)
    if done.finish == "error":
        found.fail(FAILED, done.error or "")
        return
    read = dialogue.tasks_from_turns(done.turns, wanted.template)
    if isinstance(read, NoTask):
        found.fail(CUT if done.finish == "length" else read.reason, shown(done))
        return
    new = found.new(read)
    if not new:
        found.fail(DOUBLE, shown(done))
    for task in new:
        if found.is_enough:
            break
        if wanted.answer_temperature is None:
            found.keep(task, draw, shown(done))
        else:
            yield from _answered_anew(asked, task, wanted, draw, found, shown(done))


def _answered_anew(
    asked: Request, task: Task, wanted: Wanted, draw: int, found: _Found, raw: str
) -> Flow[None]:
    """Ask for both answers to a question again, each without sight of the other."""
    assert wanted.answer_temperature is not None
    sampling = Sampling(wanted.max_new_tokens, wanted.answer_temperature, wanted.seed)
    answers = {}
    for style in dialogue.STYLES:
        question = prompts.render(wanted.template, turn=style, instruction=task.instruction)
        request = Request((*asked.turns, user(question)), asked.images)
        done: Completion = yield Ask(request, sampling)
        answers[style] = done.text.strip()
        fault = {"error": FAILED, "length": CUT}.get(done.finish, fault_of(answers[style]))
        if fault is not None:
            found.fail(fault, done.error or raw)
            return
    found.keep(Task(task.instruction, **answers), draw, raw)


def _from_order(
    pair: Record, images: tuple[bytes, ...], wanted: Wanted, draw: int, found: _Found
) -> Flow[None]:
    rng = random.Random(f"{wanted.seed}/task_types/{pair.id}/{draw}")
    types = _task_types.drawn(wanted.task_types, wanted.num_tasks, rng)
    text = prompts.render(
        wanted.template,
        caption=pair.caption,
        num_tasks=wanted.num_tasks,
        task_types=[{"name": name, "asks": _task_types.described(name)} for name in types],
    )
    places = [ImagePart(number) for number in range(len(images))]
    asked = Request((user(*places, text),), images)
    schema = json.dumps(order_schema(wanted.num_tasks, types), sort_keys=True)
    done: Completion = yield Ask(asked, wanted.sampling(draw, schema))
    found.note(done)
    if done.finish == "error":
        found.fail(FAILED, done.error or "")
        return
    read = ordered_tasks(done.text, types, is_cut=done.finish == "length")
    for reason in read.reasons:
        found.fail(reason, shown(done))
    for task, task_type in read.tasks:
        if found.is_enough:
            break
        if found.new([task]):
            found.keep(task, draw, shown(done), task_type)
        else:
            found.fail(DOUBLE, task.instruction)


def order_schema(num_tasks: int, types: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of the answer to an order."""
    text = {"type": "string", "minLength": 1}
    fields: dict[str, Any] = dict.fromkeys(FIELDS, text)
    if types:
        fields = {"type": {"enum": sorted(set(types))}, **fields}
    task = {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    tasks = {"type": "array", "items": task, "minItems": 1, "maxItems": num_tasks}
    return {
        "type": "object",
        "properties": {"tasks": tasks},
        "required": ["tasks"],
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True)
class Ordered:
    """What is in the answer to an order: tasks, each with its type, and why others are not."""

    tasks: list[tuple[Task, str | None]]
    reasons: list[str]


def ordered_tasks(text: str, types: Sequence[str] = (), *, is_cut: bool = False) -> Ordered:
    """Read the answer to an order: every whole task, whatever is wrong with the rest.

    A task has a type only if it is one of `types`: not every server holds to the schema.
    A Markdown fence around the JSON is let pass: models without structured output like it.
    """
    rows, is_whole = _ordered_rows(text)
    read = [_ordered_task(row, types) for row in rows]
    reasons = [one.reason for one in read if isinstance(one, NoTask)]
    if not is_whole:
        reasons.append(CUT if is_cut else NOT_JSON)
    elif not rows:
        reasons.append(dialogue.NO_TURNS)
    tasks = [one for one in read if not isinstance(one, NoTask)]
    return Ordered(tasks, list(dict.fromkeys(reasons)))


def _ordered_rows(text: str) -> tuple[list[Any], bool]:
    """Return the rows of an answer, and whether they are all of it; else those it begins with."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        rows = json.loads(_unfenced(text))["tasks"]
        if isinstance(rows, list):
            return rows, True
    return list(_first_rows(text)), False


def _first_rows(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects with which an array of tasks begins, up to the first that is not whole."""
    decoder = json.JSONDecoder()
    before = _ARRAY_STARTS.match(text)
    while before is not None:
        try:
            row, end = decoder.raw_decode(text, before.end())
        except (ValueError, RecursionError):
            return
        if not isinstance(row, dict):
            return
        yield row
        before = _COMMA.match(text, end)


def _ordered_task(row: Any, types: Sequence[str]) -> tuple[Task, str | None] | NoTask:
    try:
        texts = [row[name].strip() for name in FIELDS]
    except (KeyError, TypeError, AttributeError):
        return NoTask(NOT_JSON)
    fault = fault_of(*texts)
    if fault is not None:
        return NoTask(NOT_JSON if fault == dialogue.NOT_UNICODE else fault)
    task_type = row.get("type")
    return Task(*texts), task_type if task_type in types else None


def answers_schema() -> dict[str, Any]:
    """Return the JSON schema of two answers that are written again."""
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "properties": {"informative": text, "precise": text},
        "required": ["informative", "precise"],
        "additionalProperties": False,
    }


def answers_in(text: str) -> dict[str, str] | None:
    """Read two answers from JSON, None when they are not there."""
    try:
        row = json.loads(_unfenced(text))
        found = {name: row[name].strip() for name in ("informative", "precise")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None if fault_of(*found.values()) else found


def _unfenced(text: str) -> str:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.S)
    return fenced.group(1) if fenced else text


def shown(completion: Completion) -> str:
    """Return what was written, as the ledger shows it."""
    turns = " | ".join(f"{turn.role}: {turn.text}" for turn in completion.turns)
    return as_unicode(completion.raw or turns)
