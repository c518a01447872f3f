"""Tell what the experiment found: a summary for machines, a report for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.artifacts import Artifact, Inputs, Outputs
from engine.plan.stage import Needs, Port, Stage, Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The recipe and plan, as the report shows them."""

    recipe: str
    raw: Mapping[str, Any]  # the resolved recipe
    plan: tuple[Mapping[str, str], ...]  # id, stage and key of every other node
    arms: tuple[str, ...]


def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
    """Write `summary.json` and `report.html`."""
    from engine.rendering.page import report_html
    from engine.rendering.summary import summarise
    from engine.stages._ranking import ranked

    arms = nodes_by_arm(inputs.many("artifacts"), params.arms)
    named = params.raw.get("benchmarks", {})
    general = set(named.get("general", ())) - set(named.get("domain", ()))
    summary = summarise(params.recipe, arms, general)
    summary["ranking"] = ranked(summary["arms"], arms) if len(arms) > 1 else []
    outputs.write_json("summary.json", summary)
    page = report_html(summary, params.raw, params.plan, arms)
    outputs.file("report.html").write_text(page, encoding="utf-8")


def nodes_by_arm(
    artifacts: Mapping[str, Artifact], arms: tuple[str, ...]
) -> dict[str, dict[str, Artifact]]:
    """Sort artifacts labelled `<arm>/<node id>` by arm, in the order of the arms."""
    found: dict[str, dict[str, Artifact]] = {arm: {} for arm in arms}
    for label, artifact in artifacts.items():
        arm, _, node = label.partition("/")
        found[arm][node] = artifact
    return found


STAGE = Stage(
    name="report",
    version=5,
    inputs=(Port("artifacts", many=True),),
    params=Params,
    needs=Needs(),
    run=run,
)
