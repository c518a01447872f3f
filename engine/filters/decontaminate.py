"""Drop records whose picture is in a benchmark of this recipe, so that no score is a memory.

A picture is in a benchmark if their decoded pixels are equal, or, above 0 bits, if their 64-bit
perceptual hashes differ in at most `max_distance_bits` bits (4 is a common choice; at 0, pictures
that merely share a layout stay). Source ids are compared on request only: `001.jpg` names different
pictures in different folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from engine.artifacts import Artifact
from engine.filters import Filter, FilterContext, Judge, Verdict
from engine.filters._signatures import LookAlikes, Signatures, signatures_of
from engine.filters._single import one_by_one
from engine.images import ImageBank
from engine.plugin import Between
from engine.records import Record

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


def open_filter(params: Params, context: FilterContext) -> Judge:
    """Open the filter; reads the pictures of all benchmarks."""
    forbidden = LookAlikes(params.max_distance_bits)
    by_source_id: dict[str, str] = {}
    for name, artifact in context.benchmarks.items():
        _forbid(name, artifact, forbidden, by_source_id)
    known_ids: Mapping[str, str] = by_source_id if params.by_source_id else {}
    signatures = signatures_of(context.images)
    return one_by_one(lambda record: _reason_to_drop(record, forbidden, known_ids, signatures))


def _forbid(
    name: str, artifact: Artifact, forbidden: LookAlikes, by_source_id: dict[str, str]
) -> None:
    signatures = signatures_of(ImageBank([artifact.path]))
    seen: set[str] = set()
    for item in artifact.records("rows"):
        label = f"{name}{_SEPARATOR}{item.meta.source_id}"
        by_source_id.setdefault(item.meta.source_id, label)
        for digest in item.images:
            if digest not in seen:
                seen.add(digest)
                forbidden.add(signatures, digest, label)


def _reason_to_drop(
    record: Record,
    forbidden: LookAlikes,
    by_source_id: Mapping[str, str],
    signatures: Signatures,
) -> Verdict | None:
    label = by_source_id.get(record.meta.source_id)
    if label is not None:
        return _verdict(label, "equal source id")
    for digest in record.images:
        found = forbidden.find(signatures, digest)
        if found is not None:
            return _verdict(*found)
    return None


def _verdict(label: str, likeness: str) -> Verdict:
    benchmark, item = label.split(_SEPARATOR, maxsplit=1)
    return Verdict(f"in benchmark {benchmark}", f"item {item}, {likeness}")


PLUGIN = Filter(version=1, params=Params, open=open_filter)
