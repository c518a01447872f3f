"""Finds out what filters want to know, ahead of what they decide: column after column.

A model is asked about all rows in one pass over them, so an engine that batches continuously never
waits at the end of a shard, and a judge that needs a device for itself gets it: the one before is
out of memory by then. A pass reads the rows anew, and decides anew which of them come to its
filter, from what the passes before kept.

A column after a filter that remembers waits for what that decides about all rows before, so for
what other parts find out. What of it is not there yet is found out here as well: no part ever waits
for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine.backends import Flow
from engine.plan.stage import Tools
from engine.stages import _asking, _filtering
from engine.stages._filtering import Asked, Column, OpenFilter, Row, Shards

_Shard = tuple[int, list[Row]]  # its number, and the rows that come to a filter


@dataclass(frozen=True, slots=True)
class _Pass:
    place: int  # of the filter up to which is found out
    column: Column | None  # of that filter, which is asked for; None: all that is computed
    num_in_order: int  # filters that must see all rows, in order
    is_for_all: bool = False  # shards, those of other parts too


def find_out(
    filters: Sequence[OpenFilter], shards: Shards, tools: Tools, total: int, unit: str
) -> int:
    """Ask the models of all filters; return of how many rows `tools.progress` was told.

    A part also computes what its share of the shards needs, and ends the process.
    """
    numbers = range(-(-total // _filtering.SHARD_ROWS))
    passes = _passes(filters, is_part=tools.part is not None)
    num_rows = sum(_size(number, total) for number in tools.share(numbers))
    for place, one in enumerate(passes):
        done = place * num_rows
        for number in _shards_done(one, filters, shards, tools, numbers):
            done = min(done + _size(number, total), (place + 1) * num_rows)
            tools.progress(done // len(passes), num_rows, unit)
    if tools.part is not None:
        for opened in filters:
            opened.prepare(tools.share)
        tools.end_part()
    return num_rows if passes else 0


def _size(number: int, total: int) -> int:
    return min(_filtering.SHARD_ROWS, total - number * _filtering.SHARD_ROWS)


def _passes(filters: Sequence[OpenFilter], *, is_part: bool) -> list[_Pass]:
    """Return the passes over all rows; only a part computes, what it is asked for comes first."""
    passes: list[_Pass] = []
    seen: set[str] = set()
    num_in_order = 0
    for place, opened in enumerate(filters):
        for column in opened.columns:
            if column.name in seen or not (column.asked or is_part):
                continue
            seen.add(column.name)
            one = _Pass(place, column if column.asked else None, num_in_order)
            last = passes[-1] if passes else None
            if last and (last.column, last.num_in_order) == (None, num_in_order) and not one.column:
                passes.pop()  # it computes what that does as well
            passes.append(one)
        if opened.remembers:
            num_in_order = place + 1
    return _caught_up(passes) if is_part else passes


def _caught_up(passes: Sequence[_Pass]) -> list[_Pass]:
    """Ask for other parts, before it is needed, what they have not asked yet."""
    found: list[_Pass] = []
    known = 0  # filters of which all shards are there
    for one in passes:
        if one.num_in_order > known:
            asked = [old for old in passes if old.column and known <= old.place < one.num_in_order]
            found += [replace(old, is_for_all=True) for old in asked]
            known = one.num_in_order
        found.append(one)
    return found


def _shards_done(
    one: _Pass,
    filters: Sequence[OpenFilter],
    shards: Shards,
    tools: Tools,
    numbers: Sequence[int],
) -> Iterator[int]:
    """Find out what a pass is for; yield the number of each shard that is done."""
    wanted = numbers if one.is_for_all else tools.share(numbers)

    def is_kept(number: int) -> bool:
        return one.column is not None and tools.has(one.column.name, number)

    kept = {number for number in wanted if is_kept(number)}
    yield from sorted(kept)
    before = [opened.anew() for opened in filters[: one.place]]
    todo = _left(one, before, shards, set(wanted) - kept, is_kept)
    if one.column is None:
        for number, rows in todo:
            filters[one.place].found(number, rows)
            yield number
    else:
        assert one.column.asked is not None
        flow = partial(_placed, one.column.asked)
        for number, found in _asking.answered(one.column.asked.session, todo, flow):
            tools.keep(one.column.name, number, partial(iter, found))
            yield number


def _left(
    one: _Pass,
    before: Sequence[OpenFilter],
    shards: Shards,
    missing: set[int],
    is_kept: Callable[[int], bool],
) -> Iterator[_Shard]:
    """Yield the missing shards that no other part has kept meanwhile: what comes to the filter."""
    last = max(missing, default=-1)
    if last < 0:
        return
    for number, rows in enumerate(shards()):
        if number in missing and not is_kept(number):
            applied = enumerate(_filtering.apply(before, number, rows))
            yield number, [(place, record) for place, (record, drop) in applied if drop is None]
        else:
            for _ in _filtering.apply(before[: one.num_in_order], number, rows):
                pass  # those that remember see it
        if number == last:
            return


def _placed(asked: Asked, row: Row) -> Flow[tuple[int, Any]]:
    place, record = row
    return place, (yield from asked.flow(record))
