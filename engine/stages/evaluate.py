"""Ask a model a benchmark's questions, and score two models on the same answers.

Two stages, so that a new scorer or statistic never asks a model again. Base and adapted model get
the same prompts through the same processor; every expected item has a row, a failed request too
(the reference evaluator shrinks its denominator silently: BENCHMARKS 1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from engine.artifacts import Inputs, Outputs
from engine.backends import Ask, Completion, Flow, Request, Sampling
from engine.diagnostics import StageError
from engine.images import ImageBank
from engine.plan import journal
from engine.plan.stage import Needs, Port, Stage, Tools
from engine.plugin import ModelUse
from engine.stages import _asking
from engine.stages._benchmark_items import KEPT, Item, holdout_questions, items_of
from engine.stages._expected import Expected, refuse_other_numbers
from engine.stages._models import lazy_session

SHARD_ITEMS = 128  # a kill costs at most this many; never vary it, journals are found by number
HOLDOUT = "holdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersParams:
    """Which model is asked which questions."""

    model: ModelUse
    benchmark: str
    prompt: str
    caption_prompt: str  # how captions of held-out pairs are asked for
    max_new_tokens: int
    max_items: int | None  # the first ones only: a smoke run, never a result
    row_set: str  # rows of a benchmark, or holdout


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresParams:
    """Which rule book scores which kind of question."""

    scorer: str
    scorer_version: int  # moves the key when the rule book changes
    metric: str
    metric_by_type: Mapping[str, str]
    options: str  # question: its own; answers: all answers of the benchmark are its classes
    expected: Expected | None  # None: any number of items
    benchmark: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The items that must be answered: streamed anew at each call, for there may be many."""

    items: Callable[[], Iterable[Item]]
    num_items: int


def run_answers(inputs: Inputs, params: AnswersParams, outputs: Outputs, tools: Tools) -> None:
    """Write `answers`: one row per item, in the benchmark's order."""
    asked = expected_items(inputs, params, tools.prompts)
    bank = ImageBank([inputs["images"].path])
    with lazy_session(params.model, tools, inputs.get("model")) as session:
        write_answers(asked, bank, session, params, outputs, tools)


def expected_items(inputs: Inputs, params: AnswersParams, templates: Mapping[str, str]) -> Asked:
    """Return the items that must be answered. Raise StageError if there are none."""
    rows, tasks = inputs["items"], inputs.get("tasks")
    num_items = rows.num_rows(params.row_set)
    if params.row_set == HOLDOUT:
        num_items += tasks.num_rows(KEPT) if tasks else 0
    if params.max_items is not None:
        num_items = min(num_items, params.max_items)
    if num_items == 0:
        raise StageError(
            f"benchmark `{params.benchmark}` has no items",
            hint="look at the quarantine of its source"
            if params.row_set != HOLDOUT
            else "raise `benchmarks.holdout.share`, or use more pairs",
        )

    def items() -> Iterator[Item]:
        if params.row_set == HOLDOUT:
            captions = templates[params.caption_prompt]
            questions = holdout_questions(rows, HOLDOUT, tasks, captions)
        else:
            questions = rows.records(params.row_set)
        return islice(items_of(questions, templates[params.prompt]), num_items)

    return Asked(items, num_items)


def write_answers(
    asked: Asked,
    bank: ImageBank,
    session: _asking.Runner,
    params: AnswersParams,
    outputs: Outputs,
    tools: Tools,
) -> None:
    """Put every item to the session. Raise StageError if one is missing or all requests fail."""
    sampling = Sampling(params.max_new_tokens, seed=tools.seed)

    def flow(item: Item) -> Flow[dict[str, Any]]:
        done: Completion = yield Ask(_request(item, bank), sampling)
        return _answer(item, done)

    def batches() -> Iterator[list[Item]]:
        return journal.cut(asked.items(), SHARD_ITEMS)

    outputs.count("errors", 0)
    gaps = _Gaps(params.benchmark, asked.num_items)
    answered = _asking.ask(session, tools, "answers", batches, flow, "questions", asked.num_items)
    for shard, rows in answered:
        for row in rows:
            outputs.rows("answers").write(row)
            if row["finish"] == "error":
                outputs.count("errors")
        gaps.look_at(shard, rows)
    gaps.refuse()


@dataclass(slots=True)
class _Gaps:
    """What is missing: no item may be dropped from the denominator in silence."""

    benchmark: str
    num_items: int
    num_answered: int = 0
    num_failed: int = 0
    first_missing: str | None = None
    first_failure: str | None = None

    def look_at(self, shard: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in the answers to some items."""
        answered = {row["id"] for row in rows}
        failures = [row["error"] for row in rows if row["finish"] == "error"]
        missing = [i.question.meta.source_id for i in shard if i.id not in answered]
        self.num_answered += len(shard) - len(missing)
        self.num_failed += len(failures)
        self.first_missing = next(filter(None, [self.first_missing, *missing]), None)
        self.first_failure = next(filter(None, [self.first_failure, *failures]), None)

    def refuse(self) -> None:
        """Raise StageError if an item has no answer, or every request failed."""
        num_missing = self.num_items - self.num_answered
        if num_missing:
            raise StageError(
                f"{num_missing} of {self.num_items} items of `{self.benchmark}` have no answer, "
                f'the first is "{self.first_missing}"'
            )
        if self.num_failed == self.num_items:
            raise StageError(
                f"every request of `{self.benchmark}` failed; the first: {self.first_failure}"
            )


def run_scores(inputs: Inputs, params: ScoresParams, outputs: Outputs, tools: Tools) -> None:
    """Write `items` (both scores of every question), `scores.json` and `companions.json`."""
    from engine.stages import _scoring

    rules = _scoring.rules(params.scorer, params.metric, params.metric_by_type)
    pairs = _scoring.paired_answers(inputs["base"], inputs["adapted"])
    refuse_other_numbers(params.expected, (base["answer_type"] for base, _ in pairs))
    classes = _scoring.classes(pairs) if params.options == "answers" else None
    rows = []
    for number, (base, adapted) in enumerate(pairs, start=1):
        row = _scoring.score_item(base, adapted, rules, classes)
        outputs.rows("items").write(row)
        rows.append(row)
        tools.progress(number, len(pairs), "questions")
    scores = _scoring.summary(rows, rules, params.benchmark, tools.seed)
    outputs.write_json("scores.json", scores)
    outputs.write_json("companions.json", _scoring.companions(rows))


def _request(item: Item, bank: ImageBank) -> Request:
    return Request((item.turn,), tuple(bank.encoded(digest) for digest in item.question.images))


def _answer(item: Item, completion: Completion) -> dict[str, Any]:
    return {
        **item.to_row(),
        "answer": completion.text,
        "finish": completion.finish,
        "error": completion.error,
        "num_new_tokens": completion.num_new_tokens,
    }


ANSWERS = Stage(
    name="evaluate.answers",
    version=1,
    inputs=(
        Port("items", reads=("{row_set}",)),
        Port("images", reads=("images",)),
        Port("tasks", required=False, reads=("kept",)),
        Port("model", required=False, reads=("model",)),
    ),
    params=AnswersParams,
    needs=Needs(accelerator=True, sharded=True, isolates=True),
    run=run_answers,
)

SCORES = Stage(
    name="evaluate.scores",
    version=2,
    inputs=(Port("base", reads=("answers",)), Port("adapted", reads=("answers",))),
    params=ScoresParams,
    needs=Needs(),
    run=run_scores,
)
