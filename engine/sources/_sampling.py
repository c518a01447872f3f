"""Reads a sample of rows with the source that a run would use."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import plugin
from engine.diagnostics import Diagnostic, RequestError, StageError
from engine.sources import Problem, Row, SourceContext


def unusable(message: str, hint: str | None) -> RequestError:
    """Return the error for data that no pairs can be made of."""
    return RequestError(Diagnostic("no-pairs", message, hint=hint))


def sample(
    use: str, settings: Mapping[str, Any], most: int
) -> tuple[int | None, tuple[Row, ...], tuple[Problem, ...]]:
    """Read rows with the source itself: spread over a folder of pictures, else the first ones."""
    try:
        return _read_sample(use, settings, most)
    except (StageError, ValueError, csv.Error) as error:
        raise unusable(f"the data cannot be read: {error}", getattr(error, "hint", None)) from None


def _read_sample(
    use: str, settings: Mapping[str, Any], most: int
) -> tuple[int | None, tuple[Row, ...], tuple[Problem, ...]]:
    source = plugin.load("sources", use)
    params = plugin.bind(source.params, settings)
    context = SourceContext(locate=Path, is_offline=True, seed=0)
    num_rows = None if source.num_rows is None else source.num_rows(params, context)
    items: list[Row | Problem] = []
    for span in _spans(use, num_rows, most):
        for item in source.rows(params, context, span):
            items.append(item)
            if len(items) >= most:
                break
    rows = tuple(item for item in items if isinstance(item, Row))
    return num_rows, rows, tuple(item for item in items if isinstance(item, Problem))


def _spans(use: str, num_rows: int | None, most: int) -> list[range | None]:
    if num_rows is None:
        return [None]
    if use != "image_folder" or num_rows <= most:
        return [range(min(num_rows, most))]
    starts = (index * num_rows // most for index in range(most))
    return [range(start, start + 1) for start in starts]
