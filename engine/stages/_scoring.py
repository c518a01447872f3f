"""Scores of two models on the same items: item rows, and the summary rows of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine import plugin
from engine.artifacts import Artifact
from engine.diagnostics import StageError, nearest
from engine.scorers import Metric, Score
from engine.stages._benchmark_items import question_from_row
from engine.statistics.paired import compare

Row = Mapping[str, Any]
MODELS = ("base", "adapted")
MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Rules:
    """A rule book, and which of its metrics scores which answer type."""

    scorer: str
    metrics: Mapping[str, Metric]
    metric: str
    metric_by_type: Mapping[str, str]

    def metric_name(self, answer_type: str) -> str:
        """Return the metric of an answer type."""
        return self.metric_by_type.get(answer_type, self.metric)


def rules(scorer: str, metric: str, metric_by_type: Mapping[str, str]) -> Rules:
    """Return the rules. Raise StageError for a metric that the scorer does not offer."""
    metrics: Mapping[str, Metric] = plugin.load("scorers", scorer).metrics
    for name in sorted({metric, *metric_by_type.values()} - metrics.keys()):
        close = nearest(name, metrics)
        raise StageError(
            f"scorer `{scorer}` has no metric `{name}`; it has {', '.join(sorted(metrics))}",
            hint=f"did you mean `{close}`?" if close else "choose another `benchmarks.scorer`",
        )
    return Rules(scorer, metrics, metric, metric_by_type)


def paired_answers(base: Artifact, adapted: Artifact) -> list[tuple[Row, Row]]:
    """Pair the answers of both models by item. Raise StageError unless both have every item."""
    by_id = {row["id"]: row for row in base.rows("answers")}
    changed = {row["id"]: row for row in adapted.rows("answers")}
    if by_id.keys() != changed.keys():
        num_apart = len(by_id.keys() ^ changed.keys())
        raise StageError(f"{num_apart} items were answered by one of the two models only")
    pairs: list[tuple[Row, Row]] = [(row, changed[item_id]) for item_id, row in by_id.items()]
    for row, other in pairs:
        if row["prompt_digest"] != other["prompt_digest"]:
            raise StageError(f'the two models were asked item "{row["id"]}" in different words')
    return pairs


def classes(pairs: Iterable[tuple[Row, Row]]) -> list[str]:
    """Return what a benchmark's questions choose from: all their answers, in alphabetical order.

    The packs name their classes inside the question alone, in words of their own.
    """
    return sorted({text for base, _ in pairs for text in base["references"]})


def score_item(
    base: Row, adapted: Row, by: Rules, options: Sequence[str] | None = None
) -> dict[str, Any]:
    """Score both answers to one item; `options` stand in for those of the question."""
    question = question_from_row(base if options is None else {**base, "options": options})
    metric_name = by.metric_name(base["answer_type"])
    metric = by.metrics[metric_name]
    scores = dict(zip(MODELS, _both(metric, question, base, adapted), strict=True))
    row: dict[str, Any] = {name: base[name] for name in ("id", "source_id", "cluster", "images")}
    row |= {"answer_type": base["answer_type"], "metric": metric_name}
    row |= {"question": base["question"], "reference": " | ".join(base["references"])}
    for model, answers in zip(MODELS, (base, adapted), strict=True):
        row[model] = scores[model].value
        row[f"{model}_parsed"] = scores[model].parsed
        row[f"{model}_answer"] = answers["answer"]
        row[f"{model}_extra"] = {**scores[model].extra, "num_words": _num_words(answers)}
    return row


def summary(rows: Sequence[Row], by: Rules, benchmark: str, seed: int) -> list[dict[str, Any]]:
    """Return the score row of the whole benchmark, then one per answer type."""
    types = sorted({row["answer_type"] for row in rows})
    parts = [(None, rows)]
    if len(types) > 1:
        parts += [(t, [row for row in rows if row["answer_type"] == t]) for t in types]
    return [_score_row(part, answer_type, by, benchmark, seed) for answer_type, part in parts]


def companions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return means of what is measured beside the score: recall, exact match, answer length."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        for model in MODELS:
            for name, value in row[f"{model}_extra"].items():
                lists = found.setdefault((row["answer_type"], name), {m: [] for m in MODELS})
                lists[model].append(value)
    return [
        {"answer_type": answer_type, "name": name}
        | {model: sum(values) / len(values) for model, values in lists.items() if values}
        for (answer_type, name), lists in sorted(found.items())
    ]


def _score_row(
    rows: Sequence[Row], answer_type: str | None, by: Rules, benchmark: str, seed: int
) -> dict[str, Any]:
    used = {row["metric"] for row in rows}
    difference = compare(
        [row["base"] for row in rows],
        [row["adapted"] for row in rows],
        [row["cluster"] for row in rows],
        seed=seed,
    )
    return {
        "benchmark": benchmark,
        "answer_type": answer_type,
        "metric": used.pop() if len(used) == 1 else MIXED,
        "scorer": by.scorer,
        **asdict(difference),
        **{
            f"unparsed_{model}": sum(row[f"{model}_parsed"] is None for row in rows)
            for model in MODELS
        },
    }


def _both(metric: Metric, question: Any, base: Row, adapted: Row) -> tuple[Score, Score]:
    return metric(question, base["answer"]), metric(question, adapted["answer"])


def _num_words(answers: Row) -> float:
    return float(len(answers["answer"].split()))
