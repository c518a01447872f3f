"""Join captions, tasks and replay rows into training chats (Cheng et al. 2024, section 3.2).

Single stage: a pair and its kept task are one chat about one image, the caption turn first or last
by a coin; a pair without a kept task is a caption chat alone. Two stage: captions, then the rest.
Every draw is seeded with the id of its row, so one row more or less changes no other. The reference
code writes these rows without their images (PEERS 3.1); here the record type forbids it.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from engine import prompts
from engine.artifacts import Inputs, Outputs
from engine.diagnostics import StageError
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.recipe.model import PartsSpec
from engine.records import (
    ImagePart,
    Kind,
    Meta,
    Record,
    Turn,
    assistant,
    from_json,
    make_record,
    user,
)
from engine.stages._spool import Spool

CAPTIONS, SYNTHETIC, REPLAY = "captions", "synthetic", "replay"
ROW_SETS = {"single_stage": ("train",), "two_stage": ("captions", "instructions")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Which parts enter, how much of each, and how the two answers of a task are joined."""

    pipeline: str  # single_stage or two_stage
    parts: PartsSpec
    order: str  # random or sequential
    answers: str  # combined, informative or precise
    joining: str  # template or markers
    tasks_per_pair: int | None  # the surest ones; None: all
    paper_code_compat: bool  # pairs without a task lose their caption as well
    caption_prompt: str
    combine_prompt: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question with its answer, before the image is put in front."""

    part: str
    question: str
    answer: str
    made_from: str  # id of the pair or task
    joined_by: str | None = None  # how the two answers of a task became one


@dataclass(frozen=True, slots=True)
class Mixer:
    """Everything that decides what a row looks like."""

    params: Params
    seed: int
    caption_template: str
    combine_template: str

    def draw(self, purpose: str, row_id: str, copy: int = 0) -> random.Random:
        """Return a random stream that depends on one row alone."""
        return random.Random(f"{self.seed}/{purpose}/{row_id}/{copy}")

    def num_copies(self, part: str, row_id: str, factor: float = 1.0) -> int:
        """Return how often a row enters: 2.5 gives two or three, by a coin of its own."""
        weight: float = factor * getattr(self.params.parts, part)
        whole = math.floor(weight)
        return whole + int(self.draw(part, row_id).random() < weight - whole)

    def caption(self, pair: Record, copy: int) -> Exchange:
        """Ask for a caption, each time in other words."""
        variant = self.draw("caption_prompt", pair.id, copy).randrange(2**32)
        question = prompts.render(self.caption_template, variant=variant)
        return Exchange(CAPTIONS, question, pair.caption, pair.id)

    def task(self, task: Record, copy: int) -> Exchange:
        """Ask a task's instruction; the answer is one of the two, or both glued into one."""
        if self.params.answers != "combined":
            return Exchange(SYNTHETIC, task.instruction, task.answer(self.params.answers), task.id)
        answer, joined_by = self._joined(task, copy)
        return Exchange(SYNTHETIC, task.instruction, answer, task.id, joined_by)

    def _joined(self, task: Record, copy: int) -> tuple[str, str]:
        informative, precise = task.answer("informative"), task.answer("precise")
        if self.params.joining == "markers":
            if _MARKER.search(_last_sentence(informative)):
                return informative, "informative alone"
            if _MARKER.search(precise):
                return f"{informative} {precise}", "one after the other"
        variant = self.draw("combine_prompt", task.id, copy).randrange(2**32)
        answer = prompts.render(
            self.combine_template,
            instruction=task.instruction,
            informative=informative,
            precise=precise,
            variant=variant,
        )
        return answer, f"{self.params.combine_prompt}, variant {variant}"


# Words after which the paper's code takes an answer to be concluded (METHOD 2.1).
_MARKER = re.compile(r"(?:could be|so|thus|therefore|final|answer|result) ", re.IGNORECASE)


def _last_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s+", text.strip())[-1]


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `train`, or `captions` and `instructions`."""
    captions, combine = tools.prompts[params.caption_prompt], tools.prompts[params.combine_prompt]
    mixer = Mixer(params, tools.seed, captions, combine)
    with closing(Spool(tools.scratch)) as spool:
        rows = {name: RowSet(spool, mixer) for name in ROW_SETS[params.pipeline]}
        with closing(Spool(tools.scratch)) as tasks:
            _add_chats(rows, TasksByPair(tasks, inputs), inputs, mixer, outputs)
        for record in _replay(inputs, mixer):
            rows[ROW_SETS[params.pipeline][-1]].add(record)
            outputs.count(f"part: {REPLAY}")
        for name, chosen in rows.items():
            _write(name, chosen, outputs)


class RowSet:
    """The rows of a row set, on the disk; some 200 bytes are held of each."""

    def __init__(self, spool: Spool, mixer: Mixer) -> None:
        self._spool = spool
        self._seed = mixer.seed if mixer.params.order == "random" else None
        self._repeats: dict[str, int] = defaultdict(int)
        self._order: list[bytes] = []

    def __len__(self) -> int:
        return len(self._order)

    def add(self, record: Record) -> None:
        """Append a row."""
        self._order.append(self._rank(record) + self._spool.add(record).to_bytes(8, "big"))

    def _rank(self, record: Record) -> bytes:
        """Return a seeded digest to order by; repeats of a row get digests of their own."""
        if self._seed is None:
            return b""
        name = f"{self._seed}/order/{record.id}/{self._repeats[record.id]}"
        self._repeats[record.id] += 1
        return hashlib.sha256(name.encode()).digest()

    def in_order(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as JSON, in the order in which they are written; no more can be added."""
        self._order.sort()
        for rank in self._order:
            yield self._spool.row(int.from_bytes(rank[-8:], "big"))


class TasksByPair:
    """The tasks that were kept, by their pair, on the disk."""

    def __init__(self, spool: Spool, inputs: Inputs) -> None:
        self._spool = spool
        self._places: dict[str, tuple[int, ...]] = {}
        for task in _kept(inputs):
            pair = task.meta.lineage[0]
            self._places[pair] = (*self._places.get(pair, ()), spool.add(task))

    def __len__(self) -> int:
        """Return how many pairs have tasks that were not taken."""
        return len(self._places)

    def take(self, pair: str) -> list[Record]:
        """Return the tasks of a pair, each once; there are none when it is asked again."""
        found = (from_json(self._spool.row(place)) for place in self._places.pop(pair, ()))
        tasks: dict[str, Record] = {}
        for task in found:
            tasks.setdefault(task.id, task)
        return list(tasks.values())


def _add_chats(
    rows: Mapping[str, RowSet],
    tasks: TasksByPair,
    inputs: Inputs,
    mixer: Mixer,
    outputs: Outputs,
) -> None:
    chats = _single_stage if mixer.params.pipeline == "single_stage" else _two_stage
    for row_set, exchanges, pair in chats(_pairs_with_tasks(inputs, tasks, mixer.params), mixer):
        rows[row_set].add(_chat(pair, exchanges))
        for exchange in exchanges:
            outputs.count(f"part: {exchange.part}")


PairsWithTasks = Iterator[tuple[Record, Sequence[Record]]]
Chats = Iterator[tuple[str, Sequence[Exchange], Record]]  # row set, exchanges, their pair


def _single_stage(pairs: PairsWithTasks, mixer: Mixer) -> Chats:
    for pair, tasks in pairs:
        num_captions = mixer.num_copies(CAPTIONS, pair.id)
        repeats = {task.id: mixer.num_copies(SYNTHETIC, task.id, weight_of(task)) for task in tasks}
        for copy in range(max([num_captions, *repeats.values()])):
            exchanges = [mixer.task(task, copy) for task in tasks if copy < repeats[task.id]]
            if copy < num_captions:
                is_last = mixer.draw("caption_last", pair.id, copy).random() < 0.5
                exchanges.insert(len(exchanges) if is_last else 0, mixer.caption(pair, copy))
            yield "train", exchanges, pair


def _two_stage(pairs: PairsWithTasks, mixer: Mixer) -> Chats:
    for pair, tasks in pairs:
        for copy in range(mixer.num_copies(CAPTIONS, pair.id)):
            yield "captions", [mixer.caption(pair, copy)], pair
        for task in tasks:
            for copy in range(mixer.num_copies(SYNTHETIC, task.id, weight_of(task))):
                yield "instructions", [mixer.task(task, copy)], pair


def weight_of(task: Record) -> float:
    """Return how much of a task enters, by what filters noted of it."""
    notes = (note for note in task.meta.extra.values() if isinstance(note, Mapping))
    return math.prod(float(note.get("weight", 1.0)) for note in notes)


def sureness(task: Record) -> float:
    """Return how sure judges were of a task: the mean of their scores, 0 without any."""
    notes = (note for note in task.meta.extra.values() if isinstance(note, Mapping))
    scores = [float(note["score"]) for note in notes if "label" in note and "score" in note]
    return sum(scores) / len(scores) if scores else 0.0


def _pairs_with_tasks(inputs: Inputs, tasks: TasksByPair, params: Params) -> PairsWithTasks:
    without_task = inputs.get("unparsed")
    lost_pairs = {row["pair"] for row in without_task.rows("unparsed")} if without_task else set()
    curated = inputs.get("pairs")
    for pair in curated.records("pairs") if curated is not None else ():
        if pair.id in lost_pairs:
            continue
        # Two equal pairs have one id; the task belongs to the first, or it would count twice.
        yield pair, _surest(tasks.take(pair.id), params)
    if tasks:
        raise StageError(f"{len(tasks)} tasks belong to pairs that are not in the mix")


def _surest(tasks: Sequence[Record], params: Params) -> list[Record]:
    """Return the tasks of a pair that enter, in their order."""
    if params.tasks_per_pair is None:
        return list(tasks)
    places = sorted(range(len(tasks)), key=lambda place: (-sureness(tasks[place]), place))
    return [tasks[place] for place in sorted(places[: params.tasks_per_pair])]


def _kept(inputs: Inputs) -> Iterator[Record]:
    """Yield the tasks that were kept, then those that were kept once they had been mended."""
    for port in ("tasks", "repaired"):
        found = inputs.get(port)
        yield from found.records("kept") if found is not None else ()


def _chat(pair: Record, exchanges: Sequence[Exchange]) -> Record:
    turns: list[Turn] = []
    for exchange in exchanges:
        image = () if turns else (ImagePart(0),)
        turns += [user(*image, exchange.question), assistant(exchange.answer)]
    lineage = tuple(dict.fromkeys((pair.id, *(exchange.made_from for exchange in exchanges))))
    joined = {one.made_from: one.joined_by for one in exchanges if one.joined_by is not None}
    extra = {"joined": joined} if joined else {}
    meta = Meta(Kind.CHAT, pair.meta.source_id, pair.meta.licence, lineage, extra)
    return make_record(pair.images, turns, meta)


def _replay(inputs: Inputs, mixer: Mixer) -> Iterator[Record]:
    replay = inputs.get("replay")
    for record in replay.records("rows") if replay is not None else ():
        for copy in range(mixer.num_copies(REPLAY, record.id)):
            yield _as_chat(record, mixer, copy)


def _as_chat(record: Record, mixer: Mixer, copy: int) -> Record:
    """Pass a chat through; turn a pair or a question into one."""
    if record.meta.kind is Kind.CHAT:
        return record
    if record.meta.kind is Kind.PAIR:
        return _chat(record, [mixer.caption(record, copy)])
    if record.meta.kind is Kind.QUESTION:
        meta = Meta(Kind.CHAT, record.meta.source_id, record.meta.licence, (record.id,))
        return make_record(record.images, record.turns[:2], meta)
    raise StageError(
        f"replay rows must be chats, pairs or questions, not `{record.meta.kind}`",
        hint="choose another source in `mix.replay`",
    )


def _write(name: str, rows: RowSet, outputs: Outputs) -> None:
    if not rows:
        raise StageError(
            f"the mix has no rows in `{name}`: nothing to train on",
            hint="look at the drop reasons of the filters, and at `mix.parts`",
        )
    for row in rows.in_order():
        outputs.rows(name).write(row)


STAGE = Stage(
    name="mix",
    version=2,
    inputs=(
        Port("pairs", required=False, reads=("pairs",)),
        Port("tasks", required=False, reads=("kept",)),
        Port("repaired", required=False, reads=("kept",)),
        Port("unparsed", required=False, reads=("unparsed",)),
        Port("replay", required=False, reads=("rows",)),
    ),
    params=Params,
    needs=Needs(),
    run=run,
)
