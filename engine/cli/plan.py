"""`adapt plan`: what a run would do, and why. Writes nothing."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.cli import frozen, planning, saved, settings, tables
from engine.cli.planning import Planned
from engine.plan import graph
from engine.runtime import outlook
from engine.runtime.outlook import CACHED, NodeOutlook
from engine.runtime.store import Store


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plan", help="show what a run would do, and why", allow_abbrev=False
    )
    planning.add_recipe(parser)
    frozen.add_flag(parser)
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help="save the plan, for `adapt run FILE`"
    )
    parser.add_argument("--why", metavar="NODE", help="show what changed for one node")
    parser.add_argument("--json", action="store_true", help="print JSON")
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan of a recipe, joined with the store."""
    store = Store(settings.store_path(args, os.environ))
    planned = planning.requested(args.recipe, args.overrides, store)
    if args.frozen:
        frozen.refuse_drift(planned, args, os.environ, reads_models=False)
    if args.output is not None:
        saved.write(Path(args.output), planned.plan, planned.recipe, planned.overrides)
    return show(args, planned, store)


def show(args: argparse.Namespace, planned: Planned, store: Store) -> int:
    """Print a compiled plan, joined with the store."""
    if args.why is not None:
        planning.node_named(planned.plan, args.why)
    found = outlook.outlook(planned.plan, store)
    chosen = [item for item in found if args.why in (None, item.node.id)]
    if args.json:
        nodes = [node_json(item, with_changes=args.why is not None) for item in chosen]
        plan = {"plan": graph.FORMAT, "recipe": planned.plan.recipe, "nodes": nodes}
        print(json.dumps(plan, indent=1))
    elif args.why is not None:
        print(why_text(chosen[0]))
    else:
        print(tables.plan_text(planned.plan.recipe, found))
    return 0


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


def why_text(item: NodeOutlook) -> str:
    """Return the differences between a node and the nearest stored one of its stage."""
    node = item.node
    lines = [f"{node.id}: {item.state}; {item.reason}", f"  key {node.key}"]
    if item.state == CACHED:
        return "\n".join(lines)
    if item.changes:
        lines.append(f"  against the nearest stored result of stage `{node.stage}`:")
        lines.extend(f"    {change}" for change in item.changes)
    return "\n".join(lines)
