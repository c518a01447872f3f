"""Puts records through the filters of a recipe, in order; shared by `curate`, `seeds` and `filter`.

A record that one filter drops is never shown to the filters after it, so a judge is asked about as
few rows as possible, and the ledger names exactly one filter per dropped row.

What filters find out is kept in shards of a fixed number of rows, and is the work of parts; most of
it is there before anything is decided (`_findings.py`). What they decide is not kept: it is quick,
may depend on all rows before, and follows from what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from engine import plugin
from engine.artifacts import Artifact
from engine.backends import Flow
from engine.filters import Decide, Filter, FilterContext, Inquiry, Share, Verdict
from engine.images import ImageBank
from engine.plan.stage import Tools
from engine.plugin import ModelUse, Use
from engine.records import Record
from engine.stages import _asking, _inquiring

SHARD_ROWS = 256  # a kill costs at most this many; never vary it, shards are found by number

Row = tuple[int, Record]  # its place in its shard
Drop = tuple[str, Verdict]  # the filter that dropped a record, and why
OpenModel = Callable[[ModelUse], _asking.Runner]
Shards = Callable[[], Iterable[Sequence[Record]]]  # the same ones at every call
EARLIER = "earlier-"  # begins the names of what is found out about earlier rows


def filter_context(
    images: Iterable[Artifact], benchmarks: Mapping[str, Artifact], tools: Tools
) -> FilterContext:
    """Return what filters may touch; `images` are the artifacts that hold the records' images."""
    return FilterContext(
        images=ImageBank(artifact.path for artifact in images),
        benchmarks=benchmarks,
        prompts=tools.prompts,
        keep=tools.keep,
        seed=tools.seed,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that is asked, and how."""

    session: _asking.Runner
    flow: Callable[[Record], Flow[Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """One thing that is found out about every record which comes to a filter."""

    name: str  # of its shards
    of: Callable[[Sequence[Record]], Iterable[Any]]
    asked: Asked | None = None  # None: it is computed


class OpenFilter:
    """A filter at its place in a recipe; it is opened when it first decides."""

    def __init__(
        self,
        use: Use,
        place: int,
        label: str,
        context: FilterContext,
        open_model: OpenModel,
        earlier: Shards,
    ) -> None:
        self.label = label
        self._earlier = earlier
        self._plug: Filter = plugin.load("filters", use.name)
        self._settings = plugin.settings_of("filters", use)
        self._context = context
        self.columns = self._columns(f"{place:02d}-{use.name}", open_model)

    def _columns(self, name: str, open_model: OpenModel) -> list[Column]:
        plug = self._plug
        if plug.inquire is not None:
            asked = plug.inquire(self._settings, self._context)
            return [self._asked(f"{name}-{n}", one, open_model) for n, one in enumerate(asked)]
        measure = plug.measure(self._settings, self._context) if plug.measure else None
        return [] if measure is None else [Column(measure.shared_name or name, measure.of)]

    def _asked(self, name: str, inquiry: Inquiry, open_model: OpenModel) -> Column:
        context = self._context
        flow = partial(_inquiring.flow, inquiry.ask, bank=context.images, seed=context.seed)
        session = open_model(inquiry.model)
        return Column(
            name, lambda rows: _asking.in_order(session, rows, flow), Asked(session, flow)
        )

    @property
    def remembers(self) -> bool:
        """Tell whether it must see the records in order."""
        return self._plug.remembers

    def anew(self) -> OpenFilter:
        """Return a filter that finds out the same, and remembers nothing yet."""
        if not self.remembers:
            return self
        other = copy(self)
        other.__dict__.pop("decide", None)
        return other

    def found(self, shard: int, left: Sequence[Row], of: str = "") -> Iterable[Any]:
        """Return what `decide` needs of the rows that are left of a shard, kept or found now."""
        columns = [self._kept(column, shard, left, of) for column in self.columns]
        if self._plug.inquire is not None:
            return map(list, zip(*columns, strict=True))
        return columns[0] if columns else [None] * len(left)

    def _kept(self, column: Column, shard: int, left: Sequence[Row], of: str) -> list[Any]:
        def find_out(rows: Sequence[Row]) -> Iterator[tuple[int, Any]]:
            found = column.of([record for _, record in rows])
            return zip((place for place, _ in rows), found, strict=True)

        # An earlier filter may have found out the same about more rows; and if its shard is lost, a
        # judge may let pass what it dropped when this shard was kept.
        by_place = dict(self._context.keep(of + column.name, shard, lambda: find_out(left)))
        missing = [row for row in left if row[0] not in by_place]
        by_place |= find_out(missing) if missing else {}
        return [by_place[place] for place, _ in left]

    def prepare(self, share: Share) -> None:
        """Do a share of what must be done before it decides."""
        if self._plug.prepare is not None:
            self._plug.prepare(self._settings, self._context, share)

    @cached_property
    def decide(self) -> Decide:
        """Decides about one record after the other; one that remembers has seen the earlier ones.

        They were let pass once, so it lets them pass again.
        """
        decide = self._plug.open(self._settings, self._context)
        for number, rows in enumerate(self._earlier() if self.remembers else ()):
            found = self.found(number, list(enumerate(rows)), EARLIER)
            for record, value in zip(rows, found, strict=True):
                decide(record, value)
        return decide


def open_filters(
    uses: Sequence[Use], context: FilterContext, open_model: OpenModel, earlier: Shards = tuple
) -> list[OpenFilter]:
    """Return the filters, in their order; one that is used twice is two filters.

    `earlier` are rows that the same filters let pass before.
    """
    names = labels([use.name for use in uses])
    return [
        OpenFilter(use, place, names[place], context, open_model, earlier)
        for place, use in enumerate(uses)
    ]


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
    left = list(enumerate(noted))
    for opened in filters:
        if not left:
            break
        for (place, record), value in zip(left, opened.found(shard, left), strict=True):
            decision = opened.decide(record, value)
            if isinstance(decision, Verdict):
                drops[place] = (opened.label, decision)
            if decision is not None and decision.notes:
                noted[place] = _with_notes(record, opened.label, decision.notes)
        left = [(place, noted[place]) for place, _ in left if drops[place] is None]
    yield from zip(noted, drops, strict=True)


def _with_notes(record: Record, label: str, notes: Mapping[str, Any]) -> Record:
    extra = {**record.meta.extra, label: dict(notes)}
    return replace(record, meta=replace(record.meta, extra=extra))
