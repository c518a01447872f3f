"""Drop records with a picture that is too small to see anything on, or too long and narrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from engine.filters import Filter, FilterContext, Judge, Verdict
from engine.filters._single import one_by_one
from engine.images import ImageBank, size_px
from engine.plugin import AtLeast
from engine.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `image_size`."""

    min_side_px: Annotated[int, AtLeast(1), "Shortest side a picture may have."] = 1
    max_aspect_ratio: Annotated[
        float | None, AtLeast(1), "Longest side over shortest; some vision towers refuse 200."
    ] = None


def reason_to_drop(record: Record, params: Params, images: ImageBank) -> Verdict | None:
    """Say why a picture's shape disqualifies its record; only headers are read."""
    for digest in record.images:
        width, height = size_px(images.encoded(digest))
        short, long = sorted((width, height))
        if short < params.min_side_px:
            return Verdict("too small", f"{width} x {height} px")
        if params.max_aspect_ratio is not None and long > params.max_aspect_ratio * short:
            return Verdict("too narrow", f"{width} x {height} px")
    return None


def open_filter(params: Params, context: FilterContext) -> Judge:
    """Open the filter."""
    return one_by_one(lambda record: reason_to_drop(record, params, context.images))


PLUGIN = Filter(version=1, params=Params, open=open_filter)
