"""Filters the pairs of a source and cuts off the held-out share.

The hold-out is cut by picture: all pairs of one picture fall on one side, which side is decided by
a seeded hash of the picture alone. Adding, removing or reordering rows moves no other row.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from engine.artifacts import Inputs, Outputs
from engine.diagnostics import StageError
from engine.plan import journal
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import Between, Family, Use
from engine.records import Kind, Record
from engine.stages import _filtering, _findings
from engine.stages._models import Models

PAIRS, HOLDOUT = "pairs", "holdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What to drop, and how much to hold out."""

    filters: Annotated[
        tuple[Annotated[Use, Family("filters")], ...], "Filters of pairs, applied in order."
    ]
    holdout_share: Annotated[float, Between(0, 1), "Share of the pictures to hold out."] = 0.0
    holdout_max_items: Annotated[int, "Most pairs to hold out; the rest is trained on."] = 0


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `pairs` and `holdout`; raise `StageError` when no pair is left."""
    images, benchmarks = inputs.many("images").values(), inputs.many("benchmarks")
    context = _filtering.filter_context(images, benchmarks, tools)

    def shards() -> Iterator[list[Record]]:
        return journal.cut(inputs["pairs"].records("rows"), _filtering.SHARD_ROWS)

    total, done = inputs["pairs"].num_rows("rows"), 0
    holdout = Holdout(tools.seed, params.holdout_share, params.holdout_max_items)
    reasons: Counter[str] = Counter()
    with Models.of(tools) as models:
        filters = _filtering.open_filters(params.filters, context, models.get)
        told = _findings.find_out(filters, lambda: map(_pairs, shards()), tools, total, "pairs")
        for number, rows in enumerate(shards()):
            _quarantine_others(rows, outputs, reasons)
            for record, drop in _filtering.apply(filters, number, _pairs(rows)):
                if drop is None:
                    for trained in holdout.offer(record):
                        outputs.rows(PAIRS).write(trained)
                else:
                    _quarantine(record, drop, outputs, reasons)
            done += len(rows)
            tools.progress(max(done, told), total, "pairs")
    for record in holdout.records():
        outputs.rows(HOLDOUT).write(record)
    _refuse_nothing(outputs, total, reasons)


class Holdout:
    """Chooses the pairs to hold out: pictures whose hash is low, the lowest if there are too many.

    Only the chosen ones are held in memory.
    """

    def __init__(self, seed: int, share: float, max_items: int) -> None:
        self._seed = seed
        self._max_items = max_items
        self._threshold = share if max_items > 0 else 0.0
        self._heap: list[_Entry] = []
        self._num_offered = 0

    def offer(self, record: Record) -> list[Record]:
        """Take a record or not; return those that are trained on: itself, or some taken before."""
        position = _position(self._seed, record)
        if position >= self._threshold:
            return [record]
        self._num_offered += 1
        heapq.heappush(self._heap, _Entry(-position, self._num_offered, record))
        if len(self._heap) <= self._max_items:
            return []
        return self._give_back()

    def records(self) -> list[Record]:
        """Return the records held out, in the order in which they came."""
        return [entry.record for entry in sorted(self._heap, key=lambda entry: entry.number)]

    def _give_back(self) -> list[Record]:
        """Return all records of the picture with the highest hash; no later one takes its place."""
        highest = self._heap[0].negative
        self._threshold = -highest
        given: list[Record] = []
        while self._heap and self._heap[0].negative == highest:
            given.append(heapq.heappop(self._heap).record)
        return given


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    negative: float  # of the position, so that the heap's top is the highest
    number: int
    record: Record = field(compare=False)


def _position(seed: int, record: Record) -> float:
    """Return where a record's first picture falls between 0 and 1."""
    image = record.images[0] if record.images else record.id
    digest = hashlib.sha256(f"holdout {seed} {image}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _pairs(rows: Sequence[Record]) -> list[Record]:
    return [record for record in rows if record.meta.kind is Kind.PAIR]


def _quarantine_others(rows: Sequence[Record], outputs: Outputs, reasons: Counter[str]) -> None:
    for record in rows:
        if record.meta.kind is not Kind.PAIR:
            reason = f"not an image-caption pair but a {record.meta.kind}"
            outputs.quarantine(record.meta.source_id, reason)
            reasons[reason] += 1


def _quarantine(
    record: Record, drop: _filtering.Drop, outputs: Outputs, reasons: Counter[str]
) -> None:
    name, verdict = drop
    reason = f"{name}: {verdict.reason}"
    outputs.quarantine(record.meta.source_id, reason, verdict.detail)
    reasons[reason] += 1


def _refuse_nothing(outputs: Outputs, total: int, reasons: Counter[str]) -> None:
    if outputs.rows(PAIRS).num_rows:
        return
    num_held_out = outputs.rows(HOLDOUT).num_rows
    counted = [f"{number} {reason}" for reason, number in reasons.most_common()]
    counted += [f"{num_held_out} held out"] if num_held_out else []
    raise StageError(
        f"no pair is left to train on; {total} pairs: {', '.join(counted) or 'none were read'}",
        hint="`adapt show` lists the dropped rows of a run; loosen the filter that drops most",
    )


STAGE = Stage(
    name="curate",
    version=1,
    inputs=(
        Port("pairs", reads=("rows",)),
        Port("images", reads=("images",)),
        Port("benchmarks", required=False, many=True, reads=("rows", "images")),
    ),
    params=Params,
    needs=Needs(sharded=True),
    run=run,
)
