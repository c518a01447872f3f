"""Builds artifacts of pairs, and opens filters on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine import plugin
from engine.artifacts import Artifact, Manifest, Outputs
from engine.filters import Decision, Filter, FilterContext
from engine.images import ImageBank, ImageWriter
from engine.plugin import ModelUse
from engine.records import Kind, Meta, Record, pair

Pair = tuple[str, bytes, str]  # source id, encoded image, caption


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
        open_model=_no_model,
        prompts={},
        keep=kept_nowhere,
        seed=0,
    )
    plug = plugin.load("filters", name)
    records: list[Record] = list(pairs.records("rows"))
    verdicts = verdicts_of(plug, plugin.bind(plug.params, settings), context, records)
    return {r.meta.source_id: v for r, v in zip(records, verdicts, strict=True)}


def verdicts_of(
    plug: Filter, params: object, context: FilterContext, records: Sequence[Record]
) -> list[Decision]:
    """Measure all records, then decide about them in order, as stages do."""
    measure = plug.measure(params, context) if plug.measure else None
    values = [None] * len(records) if measure is None else list(measure.of(records))
    decide = plug.open(params, context)
    seen = json.loads(json.dumps(values))
    return [decide(record, value) for record, value in zip(records, seen, strict=True)]


def kept_nowhere(name: str, number: int, work: Callable[[], Iterable[Any]]) -> list[Any]:
    """Stand for a journal that finds nothing."""
    return json.loads(json.dumps(list(work())))  # type: ignore[no-any-return]


def _no_model(use: ModelUse) -> NoReturn:
    raise AssertionError(f"this filter asks no model, not even {use.model}")
