"""Mend tasks that a judge turned down: their answers are written once more, instead of thrown away.

A tuned synthesizer gives its precise answer again, now with the informative one in sight. An
untuned model is told what the judge remarked and rewrites both answers, as JSON. A mended task goes
through the same filters as all others; there is no second repair. Questions that the judge calls
open stay dropped: no answer would help them. (VERITAS, arXiv 2510.15317, mends answers as well.)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine import prompts
from engine.artifacts import Inputs, Outputs
from engine.backends import Ask, Completion, Flow, Request, Sampling
from engine.images import ImageBank
from engine.plan import journal
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import ModelUse
from engine.recipe.prompts import variables
from engine.records import (
    ImagePart,
    Record,
    Turn,
    as_unicode,
    assistant,
    from_json,
    make_record,
    user,
)
from engine.stages import _asking
from engine.stages._models import lazy_session
from engine.stages._writing import (
    CUT,
    FAILED,
    NOT_JSON,
    RAW_CHARS,
    answers_in,
    answers_schema,
    shown,
)
from engine.training import dialogue

SHARD_TASKS = 128  # a kill costs at most this many; never vary it, journals are found by number
STYLES = ("informative", "precise")
OPEN = "open"  # what judges call a question without a definite answer
UNCHANGED = "the mended answer is the old one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Who writes the answers again, and how it is asked."""

    generator: ModelUse
    prompt: str
    max_new_tokens: int
    filters: tuple[str, ...]  # as notes name them; what they noted of the old answers is dropped


@dataclass(frozen=True, slots=True)
class Case:
    """A task that was turned down, by which filter, and what that said."""

    task: Record
    by: str
    reason: str
    note: Mapping[str, Any]

    @property
    def remark(self) -> str:
        """Return what is wrong, in the judge's words if it gave any."""
        return str(self.note.get("remark") or self.reason)


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `tasks`, and the ledger of those that could not be mended."""
    template = tools.prompts[params.prompt]
    bank = ImageBank([inputs["images"].path])
    is_dialogue = "turn" in variables(template)
    again = _in_dialogue if is_dialogue else _by_order
    sampling = Sampling(params.max_new_tokens, seed=tools.seed)

    def batches() -> Iterator[list[Case]]:
        return journal.cut(cases(inputs), SHARD_TASKS)

    def flow(case: Case) -> Flow[dict[str, Any]]:
        images = tuple(bank.encoded(digest) for digest in case.task.images)
        return again(case, images, template, sampling)

    outputs.rows("tasks")
    total = sum(1 for _ in cases(inputs))
    with lazy_session(params.generator, tools, inputs.get("model")) as session:
        done = _asking.ask(session, tools, "repair", batches, flow, "tasks", total)
        for shard, rows in done:
            for case, row in zip(shard, rows, strict=True):
                _write(case, row, params, template, outputs)


def cases(inputs: Inputs) -> Iterator[Case]:
    """Yield the dropped tasks on which a judge gave a label that better answers may turn."""
    for row in inputs["tasks"].rows("dropped"):
        task = from_json(row["record"])
        note = task.meta.extra.get(row["filter"])
        if isinstance(note, Mapping) and note.get("label", OPEN) != OPEN:
            yield Case(task, row["filter"], row["reason"], note)


def _in_dialogue(
    case: Case, images: tuple[bytes, ...], template: str, sampling: Sampling
) -> Flow[dict[str, Any]]:
    """Ask for the precise answer again, after the informative one."""
    task = case.task
    informative = task.answer("informative")
    asked = [prompts.render(template, turn=style, instruction=task.instruction) for style in STYLES]
    turns: tuple[Turn, ...] = (
        user(*_places(task), prompts.render(template, turn="caption")),
        assistant(str(task.meta.extra.get("caption", ""))),
        user(asked[0]),
        assistant(informative),
        user(asked[1]),
    )
    done: Completion = yield Ask(Request(turns, images), sampling)
    precise = done.text.strip()
    fault = dialogue.fault_of(precise)
    if done.finish != "stop" or fault is not None:
        return _failure(done, fault or dialogue.EMPTY_TURN)
    return {"informative": informative, "precise": precise, "raw": shown(done)}


def _by_order(
    case: Case, images: tuple[bytes, ...], template: str, sampling: Sampling
) -> Flow[dict[str, Any]]:
    """Tell what was remarked, and have both answers written again."""
    task = case.task
    text = prompts.render(
        template,
        caption=task.meta.extra.get("caption", ""),
        instruction=task.instruction,
        informative=task.answer("informative"),
        precise=task.answer("precise"),
        remark=case.remark,
    )
    as_json = replace(sampling, json_schema=json.dumps(answers_schema(), sort_keys=True))
    done: Completion = yield Ask(Request((user(*_places(task), text),), images), as_json)
    found = answers_in(done.text) if done.finish != "error" else None
    if found is None:
        return _failure(done, NOT_JSON)
    return {**found, "raw": shown(done)}


def _places(task: Record) -> list[ImagePart]:
    return [ImagePart(number) for number in range(len(task.images))]


def _failure(done: Completion, otherwise: str) -> dict[str, Any]:
    reason = {"error": FAILED, "length": CUT}.get(done.finish, otherwise)
    return {"reason": reason, "raw": as_unicode(done.error or shown(done))}


def _write(
    case: Case, row: Mapping[str, Any], params: Params, template: str, outputs: Outputs
) -> None:
    source_id = case.task.meta.source_id
    if "reason" in row:
        outputs.quarantine(source_id, row["reason"], row["raw"][:RAW_CHARS])
        return
    old = {style: case.task.answer(style) for style in STYLES}
    if all(row[style].strip() == old[style].strip() for style in STYLES):
        outputs.quarantine(source_id, UNCHANGED, row["raw"][:RAW_CHARS])
        return
    said = {"by": case.by, "reason": case.reason, "remark": case.remark}
    history = {**old, **said, "prompt": prompts.digest(template), "raw": row["raw"][:RAW_CHARS]}
    outputs.rows("tasks").write(_mended(case.task, row, history, params.filters))


def _mended(
    task: Record, row: Mapping[str, Any], history: Mapping[str, str], filters: Collection[str]
) -> Record:
    """Return the task with its new answers; what was said of the old ones is history."""
    kept = {name: value for name, value in task.meta.extra.items() if name not in filters}
    extra = {**kept, "mended": history}
    meta = replace(task.meta, lineage=(*task.meta.lineage, task.id), extra=extra)
    answers = [assistant(row[style], style=style) for style in STYLES]
    return make_record(task.images, (task.turns[0], *answers), meta)


STAGE = Stage(
    name="repair",
    version=2,
    inputs=(
        Port("tasks", reads=("dropped",)),
        Port("images", reads=("images",)),
        Port("model", required=False, reads=("model",)),
    ),
    params=Params,
    needs=Needs(accelerator=True, sharded=True, isolates=True),
    run=run,
)
