"""`adapt status`: how a run is going, from its event log alone."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.cli import overview, settings, tables
from engine.cli.overview import Overview
from engine.diagnostics import Diagnostic, RequestError, nearest
from engine.rendering import verdicts
from engine.runtime import runs
from engine.runtime.eventlog import LogReader, line_of
from engine.runtime.runs import Run
from engine.runtime.status import UNDER_WAY, Fold, NodeStatus
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
    parser.add_argument(
        "--json", action="store_true", help="print JSON; with --follow, events as JSON lines"
    )
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status of a run."""
    store = settings.open_store(args, os.environ)
    found = chosen_run(store, args.run)
    if args.logs is not None:
        return _print_log(_maker(found, args.logs, store), args.logs, follow=args.follow)
    if args.follow:
        return _follow(found, store, as_json=args.json)
    seen = overview.of_run(found, store)
    if args.json:
        print(json.dumps(status_json(found, seen), indent=1))
        return 0
    print(tables.status_text(seen, runs.alive_or_killed(seen.status()), time.time()))
    if seen.nodes and not seen.plan.nodes:
        print("its plan.json is damaged or gone: what the log tells is all")
    if seen.num_unreadable:
        print(f"{verdicts.counted(seen.num_unreadable, 'line')} of its log could not be read")
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


def status_json(run: Run, seen: Overview) -> dict[str, Any]:
    """Return the machine-readable status, a `status` of schemas/event.schema.json."""
    status = runs.alive_or_killed(seen.status())
    return {
        "type": "status",
        "time": time.time(),
        "run": run.id,
        "recipe": status.recipe,
        "state": status.state,
        "started_at": status.started_at,
        "changed_at": status.changed_at,
        "nodes": [{"id": name, **asdict(node)} for name, node in status.nodes.items()],
        "arms": [arm.to_json() for arm in seen.arms.values()],
    }


def _follow(run: Run, store: Store, *, as_json: bool) -> int:
    """Show events as they come, until the run ends. Takes no lock and writes nothing."""
    from engine.cli import terminal

    shown = overview.of_plan(overview.plan_of(run), store)
    view = None if as_json else terminal.display(sys.stdout, shown)
    log = LogReader(run.events_path)
    # What is long over is not told step by step, but to a machine.
    found = log.every() if as_json else log.latest()
    # Of many nodes only what comes is told, where every word is a line.
    is_past = isinstance(view, terminal.Lines) and len(shown.plan.nodes) > tables.MAX_NODES
    try:
        while True:
            for event in found:
                if view is not None and not is_past:
                    view.handle(event)
                else:
                    shown.add(event)
                if as_json:
                    print(line_of(event), end="")
            is_past = False
            sys.stdout.flush()
            state = runs.alive_or_killed(shown.status()).state
            if state != "running":
                break
            time.sleep(POLL_S)
            found = log.every()
    finally:
        if view is not None:
            view.close()
    if as_json:
        print(json.dumps(status_json(run, shown)))
    else:
        print(f"run {run.id}: {state}")
    return 0


def _maker(run: Run, node_id: str, store: Store) -> Run:
    """Return the run whose log tells of a node: an earlier one where the node was cached."""
    if run.status().nodes.get(node_id, NodeStatus()).state != "cached":
        return run
    key = _key_of(run, node_id)
    before = [one for one in runs.all_runs(store) if one.log_path(node_id).exists()]
    made = next((one for one in reversed(before) if _key_of(one, node_id) == key), None)
    if made is None or key is None:
        return run
    print(f"`{node_id}` did not run in {run.id}; {made.id} made it:", file=sys.stderr)
    return made


def _key_of(run: Run, node_id: str) -> str | None:
    return next((node.key for node in overview.plan_of(run).nodes if node.id == node_id), None)


def _print_log(run: Run, node_id: str, *, follow: bool) -> int:
    ids = list(run.status().nodes) or [node.id for node in overview.plan_of(run).nodes]
    if node_id not in ids:
        close = nearest(node_id, ids)
        hint = f"`{close}` is close" if close else None
        raise RequestError(
            Diagnostic("unknown-node", f"the run has no node `{node_id}`", hint=hint)
        )
    log, fold = LogReader(run.events_path), Fold()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a letter may come in halves
    offset = 0
    while True:
        for event in log.latest():
            fold.add(event)
        status = runs.alive_or_killed(fold.status())
        node = status.nodes.get(node_id, NodeStatus())
        data = _bytes_from(run.log_path(node_id), offset)
        offset += len(data)
        print(decoder.decode(data), end="", flush=True)
        is_over = node.state not in ("waiting", *UNDER_WAY) or status.state != "running"
        if is_over or not follow:
            return 0
        time.sleep(POLL_S)


def _bytes_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""
