"""Write tasks: the synthesizer asks and answers a question about every image-caption pair.

A sampled question is worth asking, a sampled answer is often wrong: with `answer_temperature` both
answers are asked for anew once the question stands, each without sight of the other, so that a
judge of their consistency compares two opinions and not one opinion with its echo. A pair whose
output holds no task goes to the ledger with the reason and what was written; its caption stays in
the mix. The reference code drops
such pairs whole, and 500 at a time when a request fails (METHOD sections 1.5 and 7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine import prompts
from engine.artifacts import Artifact, Inputs, Outputs
from engine.backends import Completion, Request, Sampling, Session
from engine.diagnostics import StageError
from engine.images import ImageBank
from engine.plan import journal
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import ModelUse
from engine.records import ImagePart, Kind, Meta, Record, Turn, assistant, make_record, user
from engine.stages._models import lazy_session
from engine.training import dialogue
from engine.training.dialogue import NoTask, Task

SHARD_PAIRS = 128  # a kill costs at most this many; never vary it, journals are found by number
FAILED = "the request failed"
CUT = "the output was cut at max_new_tokens"
DETAIL_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Which synthesizer writes, how it is asked, and about which pairs."""

    generator: ModelUse
    prompt: str
    max_new_tokens: int
    temperature: float  # 0: greedy
    answer_temperature: float | None  # None: answers are drawn together with their question
    row_set: str  # pairs or holdout: a row set of curate


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `tasks` and the ledger of pairs that gave none."""
    pairs = inputs["pairs"]
    bank = ImageBank([inputs["images"].path])
    with lazy_session(params.generator, tools, inputs.get("model")) as session:
        write_tasks(pairs, bank, session, params, outputs, tools)


def write_tasks(
    pairs: Artifact,
    bank: ImageBank,
    session: Session,
    params: Params,
    outputs: Outputs,
    tools: Tools,
) -> None:
    """Ask the session about every pair, and write what it gives as tasks or ledger rows.

    Raise StageError if no request is answered.
    """
    template = tools.prompts[params.prompt]
    writer = _Writer(session, bank, template, params, tools.seed)
    num_pairs = pairs.num_rows(params.row_set)
    outputs.rows("tasks")
    outputs.count("num_pairs", num_pairs)
    outputs.count("generated", 0)
    batches = journal.cut(pairs.records(params.row_set), SHARD_PAIRS)
    num_failed, first_failure = 0, None
    for shard, rows in tools.shards("generate", batches, writer.rows, "pairs", num_pairs):
        for pair, row in zip(shard, rows, strict=True):
            _write_one(pair, row, template, outputs)
            if row["finish"] == "error":
                num_failed += 1
                first_failure = first_failure or row["error"]
    if num_pairs and num_failed == num_pairs:
        raise StageError(f"every request to the synthesizer failed; the first: {first_failure}")


@dataclass(frozen=True, slots=True)
class _Writer:
    """Puts pairs to the synthesizer, a shard at a time."""

    session: Session
    bank: ImageBank
    template: str
    params: Params
    seed: int

    def rows(self, batch: Sequence[Record]) -> list[dict[str, Any]]:
        """Return a journal row per pair."""
        shown = [tuple(self.bank.encoded(digest) for digest in pair.images) for pair in batch]
        told = [dialogue.generation_turns(pair, self.template) for pair in batch]
        requests = [
            Request(turns, images, "user") for turns, images in zip(told, shown, strict=True)
        ]
        sampling = Sampling(self.params.max_new_tokens, self.params.temperature, self.seed)
        rows = [_row(completion) for completion in self.session.generate(requests, sampling)]
        if self.params.answer_temperature is not None:
            self._answer_anew(requests, rows, self.params.answer_temperature)
        return rows

    def _answer_anew(
        self, asked: Sequence[Request], rows: Sequence[dict[str, Any]], temperature: float
    ) -> None:
        """Add `answers` to the rows that hold a task, each asked for without sight of the other."""
        places, styles, requests = [], [], []
        for place, row in enumerate(rows):
            task = _found(row, self.template) if row["finish"] != "error" else None
            if not isinstance(task, Task):
                continue
            row |= {"finish": "stop", "answers": {}}
            for style in dialogue.STYLES:
                question = prompts.render(self.template, turn=style, instruction=task.instruction)
                places.append(place)
                styles.append(style)
                requests.append(Request((*asked[place].turns, user(question)), asked[place].images))
        sampling = Sampling(self.params.max_new_tokens, temperature, self.seed)
        answers = self.session.generate(requests, sampling)
        for place, style, answer in zip(places, styles, answers, strict=True):
            rows[place]["answers"][style] = answer.text.strip()
            if rows[place]["finish"] == "stop":  # the first failure is the one told
                rows[place] |= {"finish": answer.finish, "error": answer.error}


def _row(completion: Completion) -> dict[str, Any]:
    return {
        "turns": [[turn.role, turn.text] for turn in completion.turns],
        "finish": completion.finish,
        "error": completion.error,
    }


def _write_one(pair: Record, row: Mapping[str, Any], template: str, outputs: Outputs) -> None:
    turns = [_turn(role, text) for role, text in row["turns"]]
    if any(turn.text.strip() for turn in turns):
        outputs.count("generated")
    if row["finish"] == "error":
        outputs.quarantine(pair.meta.source_id, FAILED, (row["error"] or "")[:DETAIL_CHARS])
        return
    found = _found(row, template)
    if isinstance(found, NoTask):
        reason = CUT if row["finish"] == "length" else found.reason
        outputs.quarantine(pair.meta.source_id, reason, _shown(turns))
    else:
        outputs.rows("tasks").write(_task(pair, found))


def _found(row: Mapping[str, Any], template: str) -> Task | NoTask:
    """Return the task of a journal row, with the answers that were asked for anew, if they were."""
    task = dialogue.task_from_turns([_turn(role, text) for role, text in row["turns"]], template)
    if isinstance(task, NoTask) or "answers" not in row:
        return task
    if row["finish"] != "stop" or not all(row["answers"].values()):
        return NoTask(dialogue.EMPTY_TURN)
    return Task(task.instruction, **row["answers"])


def _task(pair: Record, task: Task) -> Record:
    turns = (
        user(ImagePart(0), task.instruction),
        assistant(task.informative, style="informative"),
        assistant(task.precise, style="precise"),
    )
    meta = Meta(Kind.TASK, pair.meta.source_id, pair.meta.licence, (pair.id,), pair.meta.extra)
    return make_record(pair.images, turns, meta)


def _turn(role: str, text: str) -> Turn:
    return user(text) if role == "user" else assistant(text)


def _shown(turns: Sequence[Turn]) -> str:
    return " | ".join(f"{turn.role}: {turn.text}" for turn in turns)[:DETAIL_CHARS]


STAGE = Stage(
    name="generate",
    version=3,
    inputs=(
        Port("pairs", reads=("{row_set}",)),
        Port("images", reads=("images",)),
        Port("model", required=False, reads=("model",)),
    ),
    params=Params,
    needs=Needs(accelerator=True, sharded=True),
    run=run,
)
