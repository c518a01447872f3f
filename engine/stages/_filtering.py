"""Puts records through the filters of a recipe, in order; shared by `curate` and `filter`.

A record that one filter drops is never shown to the filters after it, so a judge is asked about as
few rows as possible, and the ledger names exactly one filter per dropped row.

What filters measure is kept in shards of a fixed number of rows, and is the work of parts. What
they decide is not kept: it is quick, may depend on all rows before, and follows from what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from engine import plugin
from engine.artifacts import Artifact
from engine.backends import Session
from engine.filters import Decide, Filter, FilterContext, Model, Share, Verdict
from engine.images import ImageBank
from engine.plan.stage import Tools
from engine.plugin import ModelUse, Use
from engine.records import Record
from engine.stages._models import FilterModel

SHARD_ROWS = 256  # a kill costs at most this many; never vary it, shards are found by number

Drop = tuple[str, Verdict]  # the filter that dropped a record, and why


def filter_context(
    images: Iterable[Artifact],
    benchmarks: Mapping[str, Artifact],
    tools: Tools,
    open_session: Callable[[ModelUse], Session],
) -> FilterContext:
    """Return what filters may touch; `images` are the artifacts that hold the records' images."""
    bank = ImageBank(artifact.path for artifact in images)

    def open_model(use: ModelUse) -> Model:
        return FilterModel(open_session(use), bank, tools.seed)

    return FilterContext(
        images=bank,
        benchmarks=benchmarks,
        open_model=open_model,
        prompts=tools.prompts,
        keep=tools.keep,
        seed=tools.seed,
    )


class OpenFilter:
    """A filter at its place in a recipe; it is opened when it first decides."""

    def __init__(self, use: Use, place: int, label: str, context: FilterContext) -> None:
        self.label = label
        self._plug: Filter = plugin.load("filters", use.name)
        self._settings = plugin.settings_of("filters", use)
        self._context = context
        measure = self._plug.measure
        self._measure = measure(self._settings, context) if measure else None
        shared_name = self._measure.shared_name if self._measure else None
        self.measure_name = shared_name or f"{place:02d}-{use.name}"

    @property
    def measures(self) -> bool:
        """Tell whether there is work to do before it decides."""
        return self._measure is not None

    @property
    def remembers(self) -> bool:
        """Tell whether it must see the records in order."""
        return self._plug.remembers

    def measured(self, shard: int, rows: Sequence[Record], left: Sequence[int]) -> list[Any]:
        """Return the measurements of the rows that are left of a shard, kept or taken now."""
        if self._measure is None:
            return [None] * len(left)
        kept = self._context.keep(self.measure_name, shard, partial(self._take, rows, left))
        by_place = dict(kept)  # an earlier filter may have measured more rows under this name
        return [by_place[place] for place in left]

    def _take(self, rows: Sequence[Record], left: Sequence[int]) -> Iterator[tuple[int, Any]]:
        assert self._measure is not None
        return zip(left, self._measure.of([rows[place] for place in left]), strict=True)

    def prepare(self, share: Share) -> None:
        """Do a share of what must be done before it decides."""
        if self._plug.prepare is not None:
            self._plug.prepare(self._settings, self._context, share)

    @cached_property
    def decide(self) -> Decide:
        """Decides about one record after the other."""
        return self._plug.open(self._settings, self._context)


def open_filters(uses: Sequence[Use], context: FilterContext) -> list[OpenFilter]:
    """Return the filters, in their order; one that is used twice is two filters."""
    names = labels([use.name for use in uses])
    return [OpenFilter(use, place, names[place], context) for place, use in enumerate(uses)]


def labels(names: Sequence[str]) -> list[str]:
    """Return what filters are called in ledgers and notes: the second of a name is `name/2`."""
    seen = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [
        name if number == 1 else f"{name}/{number}"
        for name, number in zip(names, seen, strict=True)
    ]


def apply(
    filters: Sequence[OpenFilter], shard: int, rows: Sequence[Record]
) -> Iterator[tuple[Record, Drop | None]]:
    """Yield each row of a shard, in order, with the filter that drops it and why, or None.

    What filters note about a row is in its `meta.extra`.
    """
    noted = list(rows)
    drops: list[Drop | None] = [None] * len(noted)
    left: Sequence[int] = range(len(noted))
    for opened in filters:
        if not left:
            break
        for place, value in zip(left, opened.measured(shard, noted, left), strict=True):
            decision = opened.decide(noted[place], value)
            if isinstance(decision, Verdict):
                drops[place] = (opened.label, decision)
            if decision is not None and decision.notes:
                noted[place] = _with_notes(noted[place], opened.label, decision.notes)
        left = [place for place in left if drops[place] is None]
    yield from zip(noted, drops, strict=True)


def _with_notes(record: Record, label: str, notes: Mapping[str, Any]) -> Record:
    extra = {**record.meta.extra, label: dict(notes)}
    return replace(record, meta=replace(record.meta, extra=extra))


def measure_share(
    filters: Sequence[OpenFilter],
    shards: Callable[[], Iterable[Sequence[Record]]],
    tools: Tools,
    total: int,
    unit: str,
) -> None:
    """In a part, take the measurements of its share of the shards, and end the process.

    A measurement after a filter that remembers waits for what that decides about all rows before,
    so for the measurements of other parts. Those that are not there yet are taken here as well: no
    part ever waits for another.
    """
    if tools.part is None:
        return
    passes = _passes(filters)
    own = tools.share(range(-(-total // SHARD_ROWS)))
    num_rows = len(passes) * sum(min(SHARD_ROWS, total - SHARD_ROWS * number) for number in own)
    done = 0
    for stop, in_order in passes:
        for number, rows in enumerate(shards()):
            if tools.share([number]):
                _measure(filters[: stop + 1], number, rows)
                done += len(rows)
                tools.progress(min(done, num_rows), num_rows, unit)
            elif in_order:
                list(apply(filters[:in_order], number, rows))
    for opened in filters:
        opened.prepare(tools.share)
    tools.end_part()


def _passes(filters: Sequence[OpenFilter]) -> list[tuple[int, int]]:
    """Return up to which filter a part measures its own shards, pass by pass.

    The second number of a pass is how many filters must see all shards, in order, meanwhile.
    """
    first: dict[str, int] = {}
    for place, opened in enumerate(filters):
        if opened.measures:
            first.setdefault(opened.measure_name, place)
    if not first:
        return []
    last = max(first.values())
    remember = [place for place in range(last) if filters[place].remembers]
    return [(remember[0], 0), (last, remember[-1] + 1)] if remember else [(last, 0)]


def _measure(filters: Sequence[OpenFilter], shard: int, rows: Sequence[Record]) -> None:
    """Take what the last of some filters measures of the rows that the others leave to it."""
    drops = [drop for _, drop in apply(filters[:-1], shard, rows)]
    left = [place for place, drop in enumerate(drops) if drop is None]
    if left:
        filters[-1].measured(shard, rows, left)
