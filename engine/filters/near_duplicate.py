"""Drop records whose picture was seen before; the first one stays.

Equal decoded pixels are a duplicate whatever the file format. Above 0 bits, so is a picture whose
64-bit perceptual hash differs in at most that many bits (4 is a common choice for photographs).
Leave it at 0 for pictures that share their layout, such as small rendered fields or X-ray frames:
their hashes collide. Captions play no part: one picture with two captions is one picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from engine.filters import Filter, FilterContext, Judge, Verdict
from engine.filters._signatures import LookAlikes, Signatures, signatures_of
from engine.filters._single import one_by_one
from engine.plugin import Between
from engine.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `near_duplicate`."""

    max_distance_bits: Annotated[
        int, Between(0, 32), "Bits of the perceptual hash that may differ; 0: equal pixels only."
    ] = 0


def open_filter(params: Params, context: FilterContext) -> Judge:
    """Open the filter; it remembers every picture that it let pass."""
    signatures, seen = signatures_of(context.images), LookAlikes(params.max_distance_bits)
    return one_by_one(lambda record: _reason_to_drop(record, seen, signatures))


def _reason_to_drop(record: Record, seen: LookAlikes, signatures: Signatures) -> Verdict | None:
    for digest in record.images:
        found = seen.find(signatures, digest)
        if found is not None:
            return Verdict("duplicate image", f"of {found[0]}, {found[1]}")
    for digest in record.images:
        seen.add(signatures, digest, record.meta.source_id)
    return None


PLUGIN = Filter(version=1, params=Params, open=open_filter)
