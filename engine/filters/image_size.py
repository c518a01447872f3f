"""Drop records with a picture that is too small to see anything on, or too long and narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from engine.filters import Decide, Filter, FilterContext, Measure, Verdict
from engine.images import size_px
from engine.plugin import AtLeast
from engine.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `image_size`."""

    min_side_px: Annotated[int, AtLeast(1), "Shortest side a picture may have."] = 1
    max_aspect_ratio: Annotated[
        float | None, AtLeast(1), "Longest side over shortest; some vision towers refuse 200."
    ] = None


def reason_to_drop(sizes_px: Iterable[Sequence[int]], params: Params) -> Verdict | None:
    """Say why the shape of one of its pictures disqualifies a record."""
    for width, height in sizes_px:
        short, long = sorted((width, height))
        if short < params.min_side_px:
            return Verdict("too small", f"{width} x {height} px")
        if params.max_aspect_ratio is not None and long > params.max_aspect_ratio * short:
            return Verdict("too narrow", f"{width} x {height} px")
    return None


def measure(params: Params, context: FilterContext) -> Measure:
    """Measure width and height of every picture; only headers are read."""

    def of(records: Sequence[Record]) -> list[list[tuple[int, int]]]:
        return [[size_px(context.images.encoded(d)) for d in r.images] for r in records]

    return Measure(of, "sizes")


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter."""
    return lambda record, sizes_px: reason_to_drop(sizes_px, params)


PLUGIN = Filter(version=1, params=Params, open=open_filter, measure=measure)
