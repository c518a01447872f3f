"""Write tasks: the synthesizer asks and answers a question about every image-caption pair.

A pair whose output holds no task goes to the ledger with the reason and what was written; its
caption stays in the mix. The reference code drops such pairs whole, and 500 at a time when a
request fails (METHOD sections 1.5 and 7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.artifacts import Inputs, Outputs
from engine.backends import Completion, Request, Sampling, Session
from engine.diagnostics import StageError
from engine.images import ImageBank
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
    row_set: str  # pairs or holdout: a row set of curate


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `tasks` and the ledger of pairs that gave none."""
    pairs = list(inputs["pairs"].records(params.row_set))
    bank = ImageBank([inputs["images"].path])
    with lazy_session(params.generator, tools, inputs.get("model")) as session:
        write_tasks(pairs, bank, session, params, outputs, tools)


def write_tasks(
    pairs: Sequence[Record],
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
    sampling = Sampling(params.max_new_tokens, params.temperature, tools.seed)

    def ask(batch: Sequence[Record]) -> list[dict[str, Any]]:
        requests = [_request(pair, bank, template) for pair in batch]
        return [_row(completion) for completion in session.generate(requests, sampling)]

    outputs.rows("tasks")
    outputs.count("num_pairs", len(pairs))
    outputs.count("generated", 0)
    batches = [pairs[i : i + SHARD_PAIRS] for i in range(0, len(pairs), SHARD_PAIRS)]
    failures = []
    written = tools.journal("generate", batches, ask, "pairs")
    for pair, row in zip(pairs, written, strict=True):
        _write_one(pair, row, template, outputs)
        failures += [row["error"]] if row["finish"] == "error" else []
    if pairs and len(failures) == len(pairs):
        raise StageError(f"every request to the synthesizer failed; the first: {failures[0]}")


def _request(pair: Record, bank: ImageBank, template: str) -> Request:
    images = tuple(bank.encoded(digest) for digest in pair.images)
    return Request(dialogue.generation_turns(pair, template), images, opens="user")


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
    found = dialogue.task_from_turns(turns, template)
    if isinstance(found, NoTask):
        reason = CUT if row["finish"] == "length" else found.reason
        outputs.quarantine(pair.meta.source_id, reason, _shown(turns))
    else:
        outputs.rows("tasks").write(_task(pair, found))


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
    version=1,
    inputs=(Port("pairs"), Port("images"), Port("model", required=False)),
    params=Params,
    needs=Needs(accelerator=True),
    run=run,
)
