"""Opens the filters of a recipe and applies them in order; shared by `curate` and `filter`.

A record that one filter drops is never shown to the filters after it, so a judge is asked about as
few rows as possible, and the ledger names exactly one filter per dropped row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from engine import plugin
from engine.artifacts import Artifact
from engine.filters import FilterContext, Judge, TextModel, Verdict
from engine.images import ImageBank
from engine.plan.stage import Tools
from engine.plugin import ModelUse, Use
from engine.records import Record

BATCH_ROWS = 256

Item = TypeVar("Item")
OpenFilters = Sequence[tuple[str, Judge]]  # (filter name, its judge), in the order of the recipe
Drop = tuple[str, Verdict]  # the filter that dropped a record, and why


def filter_context(
    images: Iterable[Artifact],
    benchmarks: Mapping[str, Artifact],
    tools: Tools,
    open_model: Callable[[ModelUse], TextModel],
) -> FilterContext:
    """Return what filters may touch; `images` are the artifacts that hold the records' images."""
    return FilterContext(
        images=ImageBank(artifact.path for artifact in images),
        benchmarks=benchmarks,
        open_model=open_model,
        prompts=tools.prompts,
        scratch=tools.scratch,
        seed=tools.seed,
    )


def open_filters(uses: Sequence[Use], context: FilterContext) -> list[tuple[str, Judge]]:
    """Open the filters, in their order; one that is used twice is two filters."""
    return [
        (use.name, plugin.load("filters", use.name).open(_settings(use), context)) for use in uses
    ]


def apply(filters: OpenFilters, batch: Sequence[Record]) -> Iterator[tuple[Record, Drop | None]]:
    """Yield each record of a batch, in order, with the filter that drops it and why, or None."""
    drops: list[Drop | None] = [None] * len(batch)
    left = list(range(len(batch)))
    for name, judge in filters:
        if not left:
            break
        verdicts = judge([batch[place] for place in left])
        for place, verdict in zip(left, verdicts, strict=True):
            drops[place] = None if verdict is None else (name, verdict)
        left = [place for place in left if drops[place] is None]
    yield from zip(batch, drops, strict=True)


def batches(items: Iterable[Item], num_rows: int = BATCH_ROWS) -> Iterator[list[Item]]:
    """Cut a stream into lists of at most `num_rows`."""
    stream = iter(items)
    while batch := list(islice(stream, num_rows)):
        yield batch


def _settings(use: Use) -> object:
    return plugin.settings_of("filters", use)
