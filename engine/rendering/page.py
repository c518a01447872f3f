"""The HTML report: what a reviewer wants to see, in one file that needs no network and no script.

Captions, answers and reasons are untrusted text: everything goes through an escaping template, and
the drawings of `engine.rendering.charts` escape their labels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.rendering import charts, samples, verdicts
from engine.rendering.summary import Nodes, held_out_losses, ledger, losses, whole
from engine.rendering.templates import page_template


def report_html(
    summary: Mapping[str, Any],
    raw: Mapping[str, Any],
    plan: Sequence[Mapping[str, str]],
    arms: Mapping[str, Nodes],
) -> str:
    """Return the whole page."""
    reach = charts.reach_of([row for arm in summary["arms"] for row in arm["scores"]])
    shown = [_arm(arm, arms[arm["name"]], reach) for arm in summary["arms"]]
    page = page_template("report").render(
        recipe=summary["recipe"],
        description=raw.get("description") or "",
        engine=summary["engine"],
        recipe_text=_yaml(raw),
        plan=plan,
        arms=shown,
        reach=reach,
        smokes=list(dict.fromkeys(filter(None, (arm["smoke"] for arm in shown)))),
        ranking=summary.get("ranking") or [],
        comparison=_comparison(summary["arms"], reach) if len(shown) > 1 else [],
        ledger=ledger(arms),
    )
    return str(page)


def _arm(arm: Mapping[str, Any], nodes: Nodes, reach: float) -> dict[str, Any]:
    bank = samples.bank_of(nodes)
    return {
        "name": arm["name"],
        "smoke": verdicts.smoke(arm.get("max_items")),
        "verdicts": [_verdict(row) for row in whole(arm["scores"])],
        "funnel": charts.funnel_svg([(one["step"], int(one["rows"])) for one in arm["steps"]]),
        "scores": [_score(row, reach) for row in arm["scores"]],
        "curves": _curves(nodes),
        "kept": samples.kept(nodes, bank),
        "num_kept": arm["funnel"]["kept"],
        "types": samples.task_types(nodes),
        "unparsed": samples.unparsed(nodes),
        "mended": samples.mended(nodes, bank),
        "reasons": samples.drop_reasons(nodes),
        "dropped": samples.dropped(nodes, bank),
        "answers": [_with_changes(found, nodes) for found in samples.answers(nodes, bank)],
    }


def _verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": verdicts.title(row),
        "kind": verdicts.kind(row),
        "sentence": verdicts.sentence(row),
        "evidence": verdicts.evidence(row),
    }


def _score(row: Mapping[str, Any], reach: float) -> dict[str, Any]:
    drawn = charts.interval_svg(row, reach, verdicts.kind(row))
    return {**row, "title": verdicts.title(row), "kind": verdicts.kind(row), "svg": drawn}


def _comparison(arms: Sequence[Mapping[str, Any]], reach: float) -> list[dict[str, Any]]:
    """Return whole-benchmark rows of all arms, a benchmark after the other."""
    rows = [
        {"arm": arm["name"], "smoke": arm.get("max_items") is not None, **_score(row, reach)}
        for arm in arms
        for row in whole(arm["scores"])
    ]
    order = list(dict.fromkeys(row["benchmark"] for row in rows))
    return sorted(rows, key=lambda row: order.index(row["benchmark"]))


def _with_changes(found: Mapping[str, Any], nodes: Nodes) -> dict[str, Any]:
    counts = samples.changes(nodes[f"evaluate.scores/{found['benchmark']}"])
    return {**found, "changes": counts}


def _curves(nodes: Nodes) -> list[dict[str, Any]]:
    found = []
    for name, artifact in nodes.items():
        points, num_bad = losses(artifact)
        if points or num_bad:
            rows = held_out_losses(artifact)
            dots = [(float(row["step"]), float(row["held_out_loss"])) for row in rows]
            svg = charts.curve_svg(points, dots)
            found.append({"name": name, "svg": svg, "num_bad": num_bad, "held_out": rows})
    return found


def _yaml(raw: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True, width=100))
