"""Reads a source into records and an image bank; what cannot be read goes into the ledger.

Nothing is held but ids: rows stream from the source to the artifact. Every picture is decoded once,
so that a truncated file is found here and not hours later in a training batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from engine import plugin
from engine.artifacts import Inputs, Outputs
from engine.diagnostics import StageError
from engine.images import ImageWriter
from engine.plan.stage import Needs, Stage, Tools
from engine.plugin import Family, Neutral, Use
from engine.records import Kind
from engine.sources import Problem, Source, SourceContext
from engine.stages import _intake
from engine.stages._expected import Expected, refuse_other_numbers
from engine.stages._intake import Taken

ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What to read."""

    source: Annotated[Use, Family("sources"), "Where the rows come from."]
    # A check: it changes no row, so it stays out of the key.
    expected: Annotated[Expected | None, Neutral(), "How many items a benchmark must have."] = None


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Read the source; raise `StageError` when no row can be used."""
    with ImageWriter(outputs.path) as bank:
        ledger = _Ledger(outputs, bank)
        for item in _items(params.source, tools):
            ledger.add(item)
    if outputs.rows(ROWS).num_rows == 0:
        raise StageError(_nothing_left(params.source, ledger.reasons))
    refuse_other_numbers(params.expected, ledger.answer_types.elements(), ledger.reasons.total())


@dataclass(slots=True)
class _Ledger:
    """Writes each row to the record set or to the quarantine."""

    outputs: Outputs
    bank: ImageWriter
    reasons: Counter[str] = field(default_factory=Counter)
    answer_types: Counter[str] = field(default_factory=Counter)
    _source_ids: dict[bytes, str] = field(default_factory=dict)  # of the rows taken, by id

    def add(self, item: Taken | Problem) -> None:
        """Write one row."""
        if isinstance(item, Problem):
            self._refuse(item)
            return
        record = item.record
        # Questions may be asked twice: a benchmark keeps the number of items it was published with.
        if record.meta.kind is not Kind.QUESTION:
            known = self._source_ids.get(bytes.fromhex(record.id))
            if known is not None:
                self._refuse(Problem(record.meta.source_id, "duplicate row", f"same as {known}"))
                return
            self._source_ids[bytes.fromhex(record.id)] = record.meta.source_id
        for encoded in item.images:
            self.bank.add(encoded)
        self.outputs.rows(ROWS).write(record)
        self.answer_types[str(record.meta.extra.get("answer_type"))] += 1

    def _refuse(self, problem: Problem) -> None:
        self.reasons[problem.reason] += 1
        self.outputs.quarantine(problem.source_id, problem.reason, problem.detail)


def _items(use: Use, tools: Tools) -> Iterator[Taken | Problem]:
    source: Source = plugin.load("sources", use.name)
    context = SourceContext(
        locate=_intake.Locate(tools.locate(".")),
        is_offline=tools.machine.is_offline,
        seed=tools.seed,
    )
    total = None
    if source.num_rows is not None:
        total = source.num_rows(plugin.settings_of("sources", use), context)
    for done, item in enumerate(_read(use, context, total, tools), start=1):
        yield item
        # A source may make several rows of one that it counts: then the end is not known.
        tools.progress(done, total if total is not None and done <= total else None, "rows")


def _read(
    use: Use, context: SourceContext, total: int | None, tools: Tools
) -> Iterator[Taken | Problem]:
    if total is None:
        tools.end_part()  # only one process can read it
        for folder in _intake.stream(use, context, tools.scratch):
            yield from _intake.replay(folder)
    elif total <= _intake.SPAN_ROWS:
        tools.end_part()
        yield from _intake.read(use, context, None)
    else:
        yield from _spans(use, context, _intake.spans(total), tools)


def _spans(
    use: Use, context: SourceContext, spans: Sequence[range], tools: Tools
) -> Iterator[Taken | Problem]:
    """Yield the rows of all spans; in a part, keep its share of them and end the process."""
    own = tools.share(range(len(spans)))
    total, done = sum(len(spans[number]) for number in own), 0
    for number in own:
        read = partial(_intake.read, use, context, spans[number])
        folder = _intake.kept(_intake.span_folder(tools.scratch, number), read)
        if tools.part is None:
            yield from _intake.replay(folder)
        else:
            done += len(spans[number])
            tools.progress(done, total, "rows")
    tools.end_part()


def _nothing_left(use: Use, reasons: Counter[str]) -> str:
    if not reasons:
        return f"the source `{use.name}` has no rows"
    counted = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
    return f"no row of the source `{use.name}` can be used; {reasons.total()} rows: {counted}"


STAGE = Stage(
    name="collect", version=1, inputs=(), params=Params, needs=Needs(sharded=True), run=run
)
