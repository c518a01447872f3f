"""Puts rows to a model: each row is a flow, shards of rows are kept when all their flows ended.

An engine with continuous batching gets the flows of many shards at once, as many as it wants to
have in hand, and shards are finished in the order in which their last row comes back; there is no
barrier at which it waits for the slowest row of a chunk. Other engines get shard after shard, so
that a shard's results depend on that shard alone, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar

from engine.backends import Flow, Result
from engine.plan.stage import Tools

Item = TypeVar("Item")
Row = Any  # JSON
Batches = Callable[[], Iterable[Sequence[Item]]]  # the same ones at every call


class Runner(Protocol):
    """A session that says how it wants to be fed."""

    @property
    def is_continuous(self) -> bool:
        """Tell whether it wants flows of many shards at once, for now."""

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows side by side; yield each one's number and result when it ends."""


def ask(
    session: Runner,
    tools: Tools,
    name: str,
    batches: Batches[Item],
    flow_of: Callable[[Item], Flow[Row]],
    unit: str,
    total: int,
) -> Iterator[tuple[Sequence[Item], list[dict[str, Any]]]]:
    """Yield each batch with the row that the flow of each of its items returned, kept or new."""

    def work(todo: Iterator[tuple[int, Sequence[Item]]]) -> Iterator[tuple[int, list[Row]]]:
        return answered(session, todo, flow_of)

    return tools.shards(name, batches, work, unit, total)


def answered(
    session: Runner,
    todo: Iterator[tuple[int, Sequence[Item]]],
    flow_of: Callable[[Item], Flow[Row]],
) -> Iterator[tuple[int, list[Row]]]:
    """Yield the number of each batch, in any order, with what the flow of each item returned."""
    for number, batch in todo:
        if session.is_continuous:  # it may become so, once suspects of a crash are cleared
            yield from _at_once(session, chain([(number, batch)], todo), flow_of)
        else:
            yield number, in_order(session, batch, flow_of)


def in_order(
    session: Runner, batch: Sequence[Item], flow_of: Callable[[Item], Flow[Row]]
) -> list[Row]:
    """Return what the flow of each item returned, in their order."""
    made = dict(session.run(map(flow_of, batch)))
    return [made[place] for place in range(len(batch))]


def _at_once(
    session: Runner,
    todo: Iterator[tuple[int, Sequence[Item]]],
    flow_of: Callable[[Item], Flow[Row]],
) -> Iterator[tuple[int, list[Row]]]:
    """Run the flows of all batches side by side; memory holds only the batches in hand."""
    places: dict[int, tuple[int, int]] = {}  # number of a flow -> batch, place in it
    made: dict[int, dict[int, Row]] = {}
    sizes: dict[int, int] = {}

    def flows() -> Iterator[Flow[Row]]:
        started = 0
        for number, batch in todo:
            made[number], sizes[number] = {}, len(batch)
            for place, item in enumerate(batch):
                places[started] = (number, place)
                started += 1
                yield flow_of(item)

    for flow_number, row in session.run(flows()):
        number, place = places.pop(flow_number)
        made[number][place] = row
        if len(made[number]) == sizes[number]:
            rows = made.pop(number)
            yield number, [rows[place] for place in range(sizes.pop(number))]
    assert not places, "flows ended without a result"
    yield from ((number, []) for number in made)  # those without an item
