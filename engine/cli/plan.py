"""`adapt plan`: what a run would do, and why; what it will take. Writes nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.cli import outlays, planning, settings, tables
from engine.cli.outlays import Outlay
from engine.cli.planning import Planned
from engine.forecast import Fleet
from engine.plan import graph
from engine.rendering import plan_card
from engine.runtime import outlook
from engine.runtime.outlook import CACHED, NodeOutlook, View
from engine.runtime.store import Store

FORMATS = ("text", "json", "mermaid", "dot", "html")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plan", help="show what a run would do, why, and what it will take", allow_abbrev=False
    )
    planning.add_recipe(parser)
    planning.add_frozen(parser)
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help="save the plan, for `adapt run FILE`"
    )
    parser.add_argument("--why", metavar="NODE", help="show what changed for one node")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the output [text]")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    outlays.add_flags(parser)
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan of a recipe, joined with the store."""
    fleet = outlays.fleet_of(args)
    store = settings.open_store(args, os.environ)
    planned = planning.requested(args.recipe, args.overrides, store)
    if args.frozen:
        from engine.cli import frozen

        frozen.refuse_drift(planned, args, os.environ, reads_models=False)
    if args.output is not None:
        from engine.cli import saved

        saved.write(Path(args.output), planned.plan, planned.recipe, planned.overrides)
    return show(args, planned, store, fleet)


def show(
    args: argparse.Namespace, planned: Planned, store: Store, fleet: Fleet | None = None
) -> int:
    """Print a compiled plan, joined with the store."""
    if args.why is not None:
        planning.node_named(planned.plan, args.why)
    view = outlook.look(planned.plan, store)
    print(rendered(args, planned, view, outlays.outlay(planned, view, store, fleet)))
    return 0


def rendered(args: argparse.Namespace, planned: Planned, view: View, found: Outlay) -> str:
    """Return the plan in the form that was asked for."""
    form = "json" if args.json else args.format
    chosen = [item for item in view.nodes if args.why in (None, item.node.id)]
    if form == "json":
        document = plan_json(planned.plan.recipe, chosen, found, with_changes=args.why is not None)
        return json.dumps(document, indent=1)
    if form != "text":
        return _drawn(form, planned, chosen, found)
    if args.why is not None:
        states = {item.node.id: item.state for item in view.nodes}
        return why_text(chosen[0], found, states)
    width = shutil.get_terminal_size((100, 24)).columns
    recipe, totals = planned.plan.recipe, outlays.totals(found)
    return tables.plan_text(recipe, view.nodes, found.forecasts, totals, width)


def _drawn(form: str, planned: Planned, chosen: list[NodeOutlook], found: Outlay) -> str:
    cards = [
        plan_card.card(item.node, item.state, item.reason, found.forecasts[item.node.id])
        for item in chosen
    ]
    if form == "html":
        from engine.rendering import plan_page

        return plan_page.page(planned.plan.recipe, cards, outlays.totals(found))
    from engine.rendering import plan_graph

    draw = plan_graph.mermaid if form == "mermaid" else plan_graph.dot
    return draw(planned.plan.recipe, cards)


def plan_json(
    recipe: str, nodes: list[NodeOutlook], found: Outlay, *, with_changes: bool = False
) -> dict[str, Any]:
    """Return the printed plan (schemas/plan.schema.json), each node with state and forecast."""
    return {
        "plan": graph.FORMAT,
        "recipe": recipe,
        "nodes": [
            node_json(item, with_changes=with_changes)
            | {"forecast": asdict(found.forecasts[item.node.id])}
            for item in nodes
        ],
        "fleet": _fleet_json(found.fleet),
        "totals": {**found.sums, "free_disk_gb": found.free_gb},
        "warnings": [item.to_json() for item in found.warnings],
    }


def _fleet_json(fleet: Fleet | None) -> dict[str, Any] | None:
    if fleet is None:
        return None
    return {**fleet.device._asdict(), "num": fleet.num, "price": fleet.price}


def node_json(item: NodeOutlook, *, with_changes: bool = False) -> dict[str, Any]:
    """Return the planned node with its state, reason and estimate."""
    found = graph.node_to_json(item.node) | {
        "state": item.state,
        "reason": item.reason,
        "estimate": asdict(item.estimate) if item.estimate else None,
    }
    if with_changes:
        found["changes"] = [asdict(change) for change in item.changes]
    return found


def why_text(item: NodeOutlook, found: Outlay, states: Mapping[str, str]) -> str:
    """Return how a node differs from the nearest stored one, what it is made of and will take."""
    node = item.node
    lines = [f"{node.id}: {item.state}; {item.reason}", f"  key {node.key}"]
    if item.state != CACHED and item.changes:
        lines.append(f"  against the nearest stored result of stage `{node.stage}`:")
        lines.extend(f"    {change}" for change in item.changes)
    from engine.cli import ingredients

    lines.append("  made of:")
    lines.extend(f"    {tables.visible(line)}" for line in ingredients.lines(node, states))
    forecast = found.forecasts[node.id]
    cells = plan_card.cells_of(forecast)
    if cells or forecast.note:
        lines.append("  what it will take:")
    lines += [
        f"    {plan_card.COLUMNS[name]} {one.text}: {one.basis}" for name, one in cells.items()
    ]
    lines += [f"    {forecast.note}"] if forecast.note else []
    return "\n".join(lines)
