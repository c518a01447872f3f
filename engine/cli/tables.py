"""What the terminal shows, as plain text: the plan, the state of a run, the funnel, the scores."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.plan.estimate import Forecast
from engine.rendering import plan_card, verdicts
from engine.rendering.plan_text import Totals
from engine.rendering.plan_text import body as plan_text_body
from engine.rendering.summary import FUNNEL
from engine.runtime.outlook import CACHED, NodeOutlook

if TYPE_CHECKING:
    from engine.cli.overview import Group, Overview
    from engine.runtime.status import NodeStatus, RunStatus

MAX_NODES = 60  # of a run that are told one by one
STEERING = {"Cc", "Cs", "Zl", "Zp"}  # categories of controls, surrogates, line separators
TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # they reorder the text around them


def visible(text: str) -> str:
    """Return text on one line that cannot steer a terminal: captions are untrusted."""
    if text.isprintable():
        return text
    return "".join(_escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) in STEERING or ord(letter) in TURNING:
        return letter.encode("unicode_escape").decode()
    return letter


def table(rows: Sequence[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """Return aligned columns; from column `numbers_from` on they are aligned to the right."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = len(widths) if numbers_from is None else numbers_from
    lines = (
        "  ".join(
            cell.rjust(width) if column >= right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def plan_text(
    recipe: str,
    nodes: Sequence[NodeOutlook],
    forecasts: Mapping[str, Forecast] | None = None,
    totals: Totals | None = None,
    width: int = 80,
) -> str:
    """Return the plan, a line per node; with forecasts also its numbers and what they stand on."""
    head = _plan_head(recipe, nodes)
    totals = totals or Totals()
    head += f"\n{totals.fleet}" if totals.fleet else ""
    if not nodes:
        return head
    found = forecasts or {}
    cards = [
        plan_card.card(item.node, item.state, item.reason, found.get(item.node.id))
        for item in nodes
    ]
    return f"{head}\n{plan_text_body(cards, totals, table, width)}"


def plan_brief(recipe: str, nodes: Sequence[NodeOutlook]) -> str:
    """Return the plan as a run begins with it: by stage where there are many nodes."""
    if len(nodes) <= MAX_NODES:
        return plan_text(recipe, nodes)
    cached = Counter(item.node.stage for item in nodes if item.state == CACHED)
    stages = Counter(item.node.stage for item in nodes)
    rows = [
        (stage, f"{num:,}", f"{cached[stage]:,}", f"{num - cached[stage]:,}")
        for stage, num in stages.items()
    ]
    head = _plan_head(recipe, nodes)
    return f"{head}\n" + table([("stage", "nodes", "cached", "to run"), *rows], numbers_from=1)


def _plan_head(recipe: str, nodes: Sequence[NodeOutlook]) -> str:
    num_cached = sum(item.state == CACHED for item in nodes)
    head = f"plan of {recipe}: {len(nodes)} nodes, {num_cached} cached, "
    return f"{head}{len(nodes) - num_cached} to run{_expected(nodes)}"


def _expected(nodes: Sequence[NodeOutlook]) -> str:
    to_run = [item for item in nodes if item.state != CACHED]
    guesses = [item.estimate for item in to_run]
    known = [guess.wall_s for guess in guesses if guess is not None and guess.is_own]
    if not known or len(known) < len(to_run):
        return ""
    return f" (took {duration(sum(known))} one after the other last time)"


def status_text(run: Overview, status: RunStatus, now: float) -> str:
    """Return the state of a run: a line per node, or per stage where there are many; arms, funnel.

    `status` is the overview's own, put right where the run's process has died.
    """
    head = f"run {status.run}: {status.state}{_time_left(run, status, now)}"
    shown = status.nodes
    parts = []
    if len(shown) > MAX_NODES:
        parts.append(_groups("stages", run.stages.values()))
        shown = {n: node for n, node in shown.items() if n in run.lively or n in run.failed}
    rows = [(name, node.state, node_detail(node, now)) for name, node in shown.items()]
    parts += [table(rows)] if rows else []
    parts += [_groups("arms", run.arms.values())] if len(run.arms) > 1 else []
    arms = [arm.to_json() for arm in run.arms.values()]
    funnel = _funnel(arms if len(arms) <= MAX_NODES else [])
    return f"{head}\n" + "\n\n".join([*parts, funnel] if funnel else parts)


def _time_left(run: Overview, status: RunStatus, now: float) -> str:
    left = run.time_left(now) if status.state == "running" else ""
    return f", {left}" if left else ""


def _groups(title: str, groups: Iterable[Group]) -> str:
    """Return a line per group; of very many, those that are not done yet first, and a count."""
    found = list(groups)
    shown = found
    if len(found) > MAX_NODES:
        shown = sorted(found, key=lambda group: group.num_good == group.num)[:MAX_NODES]
    rows = [
        (
            group.name,
            f"{group.num_good:,} of {group.num:,}",
            ", ".join(f"{num:,} {state}" for state, num in group.counted().items()),
        )
        for group in shown
    ]
    rest = f"\n  and {len(found) - len(shown):,} more" if len(shown) < len(found) else ""
    return table([(title, "done", ""), *rows]) + rest


def node_detail(node: NodeStatus, now: float) -> str:
    """Return what is worth knowing about a node in its state."""
    if node.state in ("running", "retrying") and node.message:
        return node.message
    if node.state == "running":
        since = f"for {duration(now - node.started_at)}" if node.started_at else ""
        taken = f"  {gigabytes(node.memory_gb)}" if node.memory_gb else ""
        taken += f"  gpu {gigabytes(node.gpu_memory_gb)}" if node.gpu_memory_gb else ""
        return f"{amount(node.done, node.total, node.unit)}  {since}{taken}".strip()
    if node.state == "ran":
        return f"{duration(node.wall_s)}, {gigabytes(node.peak_memory_gb)}"
    return node.message if node.state in ("failed", "skipped") else ""


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the funnel and the score table of a summary (schemas/summary.schema.json)."""
    order = summary.get("ranking") or ()
    parts = (
        smoke_text(summary),
        ranking_text(order),
        _funnel(summary["arms"]),
        _scores(summary["arms"]),
    )
    return "\n\n".join(part for part in parts if part)


def funnel_text(summary: Mapping[str, Any]) -> str:
    """Return how many rows each arm had after each stage, and on how many items it was scored."""
    scores = [row for arm in summary["arms"] for row in arm["scores"] if _is_whole(row)]
    names = {row["benchmark"]: row["num_items"] for row in scores}
    items = ", ".join(f"{name} {_count(number)}" for name, number in names.items())
    return "\n".join(filter(None, (_funnel(summary["arms"]), f"  items scored: {items}")))


def smoke_text(summary: Mapping[str, Any]) -> str:
    """Return the warning of a run whose benchmarks were cut; empty for a whole one."""
    warnings = (verdicts.smoke(arm.get("max_items")) for arm in summary["arms"])
    return "\n".join(dict.fromkeys(warning for warning in warnings if warning))


def verdict_text(summary: Mapping[str, Any]) -> str:
    """Return what was found on each whole benchmark, a paragraph each."""
    arms = summary["arms"]
    return "\n".join(
        f"{'smoke run, ' if arm.get('max_items') is not None else ''}"
        f"{arm['name'] + ', ' if len(arms) > 1 else ''}{verdicts.title(row)}: "
        f"{verdicts.sentence(row)}.\n  {verdicts.evidence(row)}"
        for arm in arms
        for row in arm["scores"]
        if _is_whole(row)
    )


def ranking_text(ranking: Sequence[Mapping[str, Any]]) -> str:
    """Return arms in one order, best first, and what shared places mean."""
    if not ranking:
        return ""
    head = ("place", "arm", "adapted", "difference", "95 % interval", "general")
    rows = [
        (
            f"{row['place'] or '-'}{'=' if row['is_shared'] else ' '}",
            row["arm"] + (" (smoke)" if row["max_items"] is not None else ""),
            _points(row["adapted"]),
            _points(row["difference"], signed=True),
            _interval(row),
            _points(row["general"], signed=True),
        )
        for row in ranking
    ]
    num = max(row["num_benchmarks"] for row in ranking)
    told = [
        table([head, *rows], numbers_from=2),
        f"  means of {verdicts.counted(num, 'domain benchmark')}",
    ]
    if any(row["is_shared"] for row in ranking):
        told[-1] += "; = cannot be told apart from the first of the place on the same items"
    told += [f"  {row['arm']} is not ranked: {row['reason']}" for row in ranking if row["reason"]]
    return "\n".join(told)


def _interval(row: Mapping[str, Any]) -> str:
    if row["ci_low"] is None:
        return "-"
    return f"{_points(row['ci_low'], signed=True)} to {_points(row['ci_high'], signed=True)}"


def _funnel(arms: Sequence[Mapping[str, Any]]) -> str:
    shown = [arm for arm in arms if arm.get("funnel")]
    if not shown:
        return ""
    rows = [("funnel", *FUNNEL.values())]
    rows += [(arm["name"], *(_count(arm["funnel"].get(name)) for name in FUNNEL)) for arm in shown]
    return table(rows, numbers_from=1)


def _scores(arms: Sequence[Mapping[str, Any]]) -> str:
    """Return the score table; of several arms the whole benchmarks first, to be compared."""
    rows = [(arm["name"], row) for arm in arms for row in arm.get("scores", ())]
    if not rows:
        return ""
    if len(arms) == 1:
        return _score_table([(_benchmark(row), row) for _, row in rows])
    whole = [(f"{arm}: {verdicts.title(row)}", row) for arm, row in rows if _is_whole(row)]
    parts = [
        (f"{arm}: {row['benchmark']}, {row['answer_type']}", row)
        for arm, row in rows
        if not _is_whole(row)
    ]
    return "\n\n".join(_score_table(part) for part in (whole, parts) if part)


def _score_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    head = ["benchmark", "metric", "base", "adapted", "difference", "95 % interval", "items"]
    is_unparsed_shown = any(_unparsed(row) for _, row in rows)
    lines = [[name, *_score_row(row)] for name, row in rows]
    if is_unparsed_shown:
        head.append("unparsed")
        for line, (_, row) in zip(lines, rows, strict=True):
            line.append(_unparsed(row) or "-")
    return table([head, *lines], numbers_from=2)


def _is_whole(row: Mapping[str, Any]) -> bool:
    return row.get("answer_type") is None


def _benchmark(row: Mapping[str, Any]) -> str:
    return verdicts.title(row) if _is_whole(row) else f"  {row['answer_type']}"


def _unparsed(row: Mapping[str, Any]) -> str:
    """Return the unparsed answers of base and adapted model; empty when there are none."""
    base, adapted = row.get("unparsed_base"), row.get("unparsed_adapted")
    return f"{_count(base)}, {_count(adapted)}" if base or adapted else ""


def _score_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row["metric"]),
        _points(row["base"]),
        _points(row["adapted"]),
        _points(row["difference"], signed=True),
        _interval(row),
        _count(row["num_items"]),
    )


def _points(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.1f}" if signed else f"{value:.1f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{int(value):,}"


def amount(done: int, total: int | None, unit: str) -> str:
    """Return how far something is, for example `12 of 40 rows`; empty before the first word."""
    if total is None:
        return f"{done:,} {unit}".strip() if done else ""
    return f"{done:,} of {total:,} {unit}".strip()


def size(num_bytes: float) -> str:
    """Return a number of bytes as a person reads it: "1.4 GB"."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if num_bytes >= 1000**power:
            return f"{num_bytes / 1000**power:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def gigabytes(value: float) -> str:
    """Return an amount of memory; a small one in megabytes."""
    return f"{value:.1f} GB" if value >= 0.1 else f"{value * 1000:.0f} MB"


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
