"""Drop records whose picture was seen before; the first one stays.

Equal decoded pixels are a duplicate whatever the file format. Above 0 bits, so is a picture whose
64-bit perceptual hash differs in at most that many bits (4 is a common choice for photographs).
Leave it at 0 for pictures that share their layout, such as small rendered fields or X-ray frames:
their hashes collide. Captions play no part: one picture with two captions is one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from engine.filters import Decide, Filter, FilterContext, Measure, Verdict
from engine.filters._signatures import Look, LookAlikes, looks
from engine.plugin import Between
from engine.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `near_duplicate`."""

    max_distance_bits: Annotated[
        int, Between(0, 32), "Bits of the perceptual hash that may differ; 0: equal pixels only."
    ] = 0


def measure(params: Params, context: FilterContext) -> Measure:
    """Find out what every picture looks like."""
    return looks(context.images, has_hash=params.max_distance_bits > 0)


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter; it remembers every picture that it let pass."""
    seen = LookAlikes(params.max_distance_bits)

    def decide(record: Record, found: Sequence[Sequence[Any]]) -> Verdict | None:
        return _reason_to_drop(record, [Look(*values) for values in found], seen)

    return decide


def _reason_to_drop(record: Record, found: Sequence[Look], seen: LookAlikes) -> Verdict | None:
    for look in found:
        alike = seen.find(look)
        if alike is not None:
            return Verdict("duplicate image", f"of {alike[0]}, {alike[1]}")
    for look in found:
        seen.add(look, record.meta.source_id)
    return None


PLUGIN = Filter(version=1, params=Params, open=open_filter, measure=measure, remembers=True)
