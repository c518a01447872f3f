"""Turns a rule about one record into a judge of batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.filters import Judge, Verdict
from engine.records import Record


def one_by_one(reason_to_drop: Callable[[Record], Verdict | None]) -> Judge:
    """Return a judge that asks about each record by itself."""

    def judge(batch: Sequence[Record]) -> list[Verdict | None]:
        return [reason_to_drop(record) for record in batch]

    return judge
