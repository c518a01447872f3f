"""`adapt status`: how a run is going, from its event log alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

from engine.cli import settings, tables
from engine.diagnostics import Diagnostic, RequestError, nearest
from engine.runtime import runs
from engine.runtime.eventlog import LogReader
from engine.runtime.runs import Run
from engine.runtime.status import Fold, RunStatus
from engine.runtime.store import Store

POLL_S = 0.5


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status", help="show how a run is going", allow_abbrev=False
    )
    parser.add_argument(
        "run", nargs="?", metavar="RUN|RECIPE", help="a run, or a recipe's newest [the newest run]"
    )
    parser.add_argument("--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--logs", metavar="NODE", help="print the output of one node")
    parser.add_argument("--json", action="store_true", help="print JSON")
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status of a run."""
    store = Store(settings.store_path(args, os.environ))
    found = chosen_run(store, args.run)
    if args.logs is not None:
        return _print_log(found, args.logs, follow=args.follow)
    if args.follow:
        _follow(found, as_json=args.json)
    status = found.status()
    if args.json:
        print(json.dumps(status_json(found, status), indent=None if args.follow else 1))
    elif not args.follow:
        print(tables.status_text(status, time.time()))
        print(f"  in {found.path}")
    return 0


def chosen_run(store: Store, name: str | None) -> Run:
    """Return the run that was named, else the newest. Raise RequestError if there is none."""
    found = runs.newest(store) if name is None else runs.find(store, name)
    if found is not None:
        return found
    ids = [run.id for run in runs.all_runs(store)]
    if not ids:
        raise RequestError(
            Diagnostic("no-run", f"there is no run in the store {store.root}", hint="`adapt run`")
        )
    close = nearest(name or "", ids) or ids[-1]
    hint = f"`{close}` is there"
    raise RequestError(Diagnostic("no-run", f"there is no run or recipe `{name}`", hint=hint))


def status_json(run: Run, status: RunStatus) -> dict[str, Any]:
    """Return the machine-readable status."""
    nodes = [{"id": name, **asdict(node)} for name, node in status.nodes.items()]
    return {
        "run": run.id,
        "recipe": status.recipe,
        "state": status.state,
        "started_at": status.started_at,
        "changed_at": status.changed_at,
        "nodes": nodes,
    }


def _follow(run: Run, *, as_json: bool) -> None:
    """Show events as they come, until the run ends."""
    from engine.cli import terminal

    lines = terminal.display(sys.stderr if as_json else sys.stdout)
    log, fold = LogReader(run.events_path), Fold()
    try:
        while True:
            for event in log.every():
                fold.add(event)
                lines.handle(event)
            status = runs.alive_or_killed(fold.status())
            if status.state != "running":
                break
            time.sleep(POLL_S)
    finally:
        lines.close()
    if not as_json:
        print(f"run {run.id}: {status.state}")


def _print_log(run: Run, node_id: str, *, follow: bool) -> int:
    ids = [node.id for node in run.plan().nodes]
    if node_id not in ids:
        close = nearest(node_id, ids)
        hint = f"`{close}` is close" if close else None
        raise RequestError(
            Diagnostic("unknown-node", f"the run has no node `{node_id}`", hint=hint)
        )
    path = run.log_path(node_id)
    offset = 0
    while True:
        is_over = run.status().nodes[node_id].state not in ("waiting", "running")
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as log:
                log.seek(offset)
                print(log.read(), end="", flush=True)
                offset = log.tell()
        if not follow or is_over or run.status().state != "running":
            return 0
        time.sleep(POLL_S)
