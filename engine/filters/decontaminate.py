"""Drop records whose picture is in a benchmark of this recipe, so that no score is a memory.

A picture is in a benchmark if their decoded pixels are equal, or, above 0 bits, if their 64-bit
perceptual hashes differ in at most `max_distance_bits` bits (4 is a common choice; at 0, pictures
that merely share a layout stay). Source ids are compared on request only: `001.jpg` names different
pictures in different folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from engine.artifacts import Artifact
from engine.filters import Decide, Filter, FilterContext, Keep, Measure, Share, Verdict
from engine.filters._signatures import Look, LookAlikes, look_of, looks
from engine.images import ImageBank
from engine.plugin import Between
from engine.records import Record

SHARD_IMAGES = 256  # never vary it, shards are found by number
_SEPARATOR = "\n"  # stands in no name of a benchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `decontaminate`."""

    max_distance_bits: Annotated[
        int, Between(0, 32), "Bits of the perceptual hash that may differ; 0: equal pixels only."
    ] = 0
    by_source_id: Annotated[
        bool, "Also drop rows with the source id of a benchmark item (ids that name their origin)."
    ] = False


def measure(params: Params, context: FilterContext) -> Measure | None:
    """Find out what every picture looks like, if there is a benchmark to compare it with."""
    if not context.benchmarks:
        return None
    return looks(context.images, has_hash=params.max_distance_bits > 0)


def prepare(params: Params, context: FilterContext, share: Share) -> None:
    """Look at a share of the pictures of all benchmarks."""
    for name, artifact in context.benchmarks.items():
        for _ in _looks_of_benchmark(name, artifact, params, context.keep, share):
            pass


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter; reads the pictures of all benchmarks."""
    forbidden = LookAlikes(params.max_distance_bits)
    by_source_id: dict[str, str] = {}
    for name, artifact in context.benchmarks.items():
        for item in artifact.records("rows"):
            by_source_id.setdefault(item.meta.source_id, _label(name, item))
        for look, label in _looks_of_benchmark(name, artifact, params, context.keep, list):
            forbidden.add(look, label)
    known_ids: Mapping[str, str] = by_source_id if params.by_source_id else {}

    def decide(record: Record, found: Sequence[Sequence[Any]] | None) -> Verdict | None:
        shown = [Look(*values) for values in found or ()]
        return _reason_to_drop(record, shown, forbidden, known_ids)

    return decide


def _looks_of_benchmark(
    name: str, artifact: Artifact, params: Params, keep: Keep, share: Share
) -> Iterator[tuple[Look, str]]:
    """Yield the looks of each picture once, with the label of the first item that shows it."""
    labels: dict[str, str] = {}
    for item in artifact.records("rows"):
        for digest in item.images:
            labels.setdefault(digest, _label(name, item))
    digests, bank = list(labels), ImageBank([artifact.path])
    has_hash = params.max_distance_bits > 0
    kept_as = f"benchmark-{'looks' if has_hash else 'pixels'}-{quote(name, safe='')}"
    for number in share(range(-(-len(digests) // SHARD_IMAGES))):
        shard = digests[number * SHARD_IMAGES : (number + 1) * SHARD_IMAGES]
        work = partial(_looks, bank, shard, has_hash=has_hash)
        for digest, value in zip(shard, keep(kept_as, number, work), strict=True):
            yield Look(*value), labels[digest]


def _looks(bank: ImageBank, digests: Sequence[str], *, has_hash: bool) -> list[Look]:
    return [look_of(bank.open(digest), has_hash=has_hash) for digest in digests]


def _label(benchmark: str, item: Record) -> str:
    return f"{benchmark}{_SEPARATOR}{item.meta.source_id}"


def _reason_to_drop(
    record: Record,
    found: Sequence[Look],
    forbidden: LookAlikes,
    by_source_id: Mapping[str, str],
) -> Verdict | None:
    label = by_source_id.get(record.meta.source_id)
    if label is not None:
        return _verdict(label, "equal source id")
    for look in found:
        alike = forbidden.find(look)
        if alike is not None:
            return _verdict(*alike)
    return None


def _verdict(label: str, likeness: str) -> Verdict:
    benchmark, item = label.split(_SEPARATOR, maxsplit=1)
    return Verdict(f"in benchmark {benchmark}", f"item {item}, {likeness}")


PLUGIN = Filter(version=1, params=Params, open=open_filter, measure=measure, prepare=prepare)
