"""Human grades as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.cli import tables
from engine.rendering import verdicts


def text(grades: Mapping[str, Any] | None) -> str:
    """Return the `grades` of a summary as tables, one for arms that share tasks; empty for none."""
    if not grades:
        return ""
    return "\n\n".join(_tasks(found, len(grades["tasks"]) > 1) for found in grades["tasks"])


def _tasks(found: Mapping[str, Any], has_others: bool) -> str:
    sets = found["sets"]
    arms = f", arm {', '.join(found['arms'])}" if has_others else ""
    graders = tables.visible(", ".join(found["graders"]))
    arms = f" of repaired tasks{arms}" if found["repaired"] else arms
    head = f"human grades{arms}: {verdicts.counted(found['num_tasks'], 'task')} by {graders}"
    effects = {row["rubric"]: row for row in found["effects"]}
    last = ("kept - generated",) if effects else ()
    rows = [("", *(part["set"] for part in sets), *last)]
    rows.append(("tasks, images", *(f"{p['num_tasks']}, {p['num_images']}" for p in sets)))
    for name in rubrics(sets):
        own = (_effect(effects.get(name)),) if effects else ()
        rows.append((name, *(_mean(part, name) for part in sets), *own))
    rows.append(("diversity", *(_diversity(part["diversity"]) for part in sets)))
    blank = [(*row, *("",) * (len(rows[0]) - len(row))) for row in rows]
    lines = [head, tables.table(blank), *agreement_lines(found["agreement"])]
    return "\n".join(lines)


def rubrics(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rubrics that have a mean in any set, in order."""
    return list(dict.fromkeys(row["rubric"] for part in sets for row in part["means"]))


def agreement_lines(agreement: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per pair of graders: kappa of each rubric."""
    pairs = dict.fromkeys(tuple(row["graders"]) for row in agreement)
    lines = []
    for pair in pairs:
        told = [_kappa(row) for row in agreement if tuple(row["graders"]) == pair]
        num = max(row["num_tasks"] for row in agreement if tuple(row["graders"]) == pair)
        names = tables.visible(" and ".join(pair))
        both = f"  kappa of {names} on {verdicts.counted(num, 'task')}: "
        lines.append(both + ", ".join(told))
    return lines


def _kappa(row: Mapping[str, Any]) -> str:
    if row["kappa"] is None:
        return f"{row['rubric']} - ({row['same_percent']:.0f} % the same)"
    return f"{row['rubric']} {row['kappa']:.2f}"


def _mean(part: Mapping[str, Any], name: str) -> str:
    row = next((row for row in part["means"] if row["rubric"] == name), None)
    if row is None:
        return "-"
    return f"{row['mean']:.1f}  {row['ci_low']:.1f} to {row['ci_high']:.1f}"


def _effect(row: Mapping[str, Any] | None) -> str:
    return f"{row['difference']:+.1f}  {verdicts.interval_text(row)}" if row else "-"


def _diversity(found: Mapping[str, Any]) -> str:
    return f"{found['points']:.1f}  {found['num_types']} of 20 types"
