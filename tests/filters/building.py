"""Builds artifacts of pairs, and opens filters on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import plugin
from engine.artifacts import Artifact, Manifest, Outputs
from engine.filters import Decision, Filter, FilterContext, Inquiry, Score, Write
from engine.images import ImageBank, ImageWriter
from engine.plugin import ModelUse
from engine.records import Kind, Meta, Record, pair

Pair = tuple[str, bytes, str]  # source id, encoded image, caption
Answer = Callable[[ModelUse, Score | Write], Any]


def artifact(folder: Path, pairs: Sequence[Pair]) -> Artifact:
    """Return an artifact as `collect` makes it."""
    folder.mkdir(parents=True)
    outputs = Outputs(folder)
    with ImageWriter(folder) as bank:
        for source_id, encoded, caption in pairs:
            meta = Meta(Kind.PAIR, source_id)
            outputs.rows("rows").write(pair(bank.add(encoded), caption, meta))
    return published(outputs)


def published(outputs: Outputs) -> Artifact:
    """Return what outputs hold as an artifact."""
    manifest = Manifest("key", "stage", (), outputs.counts(), (), {}, "digest")
    return Artifact(outputs.path, manifest)


def judged(
    name: str, pairs: Artifact, benchmarks: Mapping[str, Artifact] | None = None, **settings: Any
) -> dict[str, Decision]:
    """Return the verdict of a filter on each pair, by source id."""
    context = FilterContext(
        images=ImageBank([pairs.path]),
        benchmarks=benchmarks or {},
        prompts={},
        keep=kept_nowhere,
        seed=0,
    )
    plug = plugin.load("filters", name)
    records: list[Record] = list(pairs.records("rows"))
    verdicts = verdicts_of(plug, plugin.bind(plug.params, settings), context, records)
    return {r.meta.source_id: v for r, v in zip(records, verdicts, strict=True)}


def verdicts_of(
    plug: Filter,
    params: object,
    context: FilterContext,
    records: Sequence[Record],
    answer: Answer | None = None,
) -> list[Decision]:
    """Find out about all records, then decide about them in order, as stages do."""
    measure = plug.measure(params, context) if plug.measure else None
    values: list[Any] = [None] * len(records) if measure is None else list(measure.of(records))
    if plug.inquire is not None:
        assert answer is not None, "this filter asks no model"
        inquiries = plug.inquire(params, context)
        values = [[_answered(one, record, answer) for one in inquiries] for record in records]
    decide = plug.open(params, context)
    seen = json.loads(json.dumps(values))
    return [decide(record, value) for record, value in zip(records, seen, strict=True)]


def _answered(inquiry: Inquiry, record: Record, answer: Answer) -> Any:
    asking, reply = inquiry.ask(record), None
    while True:
        try:
            asked = asking.send(reply)
        except StopIteration as end:
            return end.value
        reply = answer(inquiry.model, asked)


def kept_nowhere(name: str, number: int, work: Callable[[], Iterable[Any]]) -> list[Any]:
    """Stand for a journal that finds nothing."""
    return json.loads(json.dumps(list(work())))  # type: ignore[no-any-return]
