"""Builds artifacts of pairs, and opens filters on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine import plugin
from engine.artifacts import Artifact, Manifest, Outputs
from engine.filters import FilterContext, Verdict
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
) -> dict[str, Verdict | None]:
    """Return the verdict of a filter on each pair, by source id."""
    context = FilterContext(
        images=ImageBank([pairs.path]),
        benchmarks=benchmarks or {},
        open_model=_no_model,
        prompts={},
        scratch=pairs.path,
        seed=0,
    )
    plug = plugin.load("filters", name)
    records: list[Record] = list(pairs.records("rows"))
    verdicts = plug.open(plugin.bind(plug.params, settings), context)(records)
    return {r.meta.source_id: v for r, v in zip(records, verdicts, strict=True)}


def _no_model(use: ModelUse) -> NoReturn:
    raise AssertionError(f"this filter asks no model, not even {use.model}")
