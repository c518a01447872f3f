"""`adapt report`: what a run found, as tables, as JSON, and where the HTML page is."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact
from engine.cli import settings, tables
from engine.cli.status import chosen_run
from engine.diagnostics import Diagnostic, RequestError
from engine.rendering import verdicts
from engine.runtime import runs
from engine.runtime.runs import Run
from engine.runtime.status import NodeStatus
from engine.runtime.store import Store, write_whole

REPORT = "report"


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report", help="print the report of a run", allow_abbrev=False
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="a run [the newest one]; several are ranked"
    )
    parser.add_argument("--recipe", metavar="PATH", help="the newest run of this recipe")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: `adapt schema summary`, of several runs `adapt schema ranking`",
    )
    settings.add_store_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    store = settings.open_store(args, os.environ)
    if len(args.runs) > 1:
        return _rank([chosen_run(store, name) for name in args.runs], store, as_json=args.json)
    found = _newest_reported(store, args)
    summary = summary_of(found, store)
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
        return 0
    if tables.verdict_text(summary):
        print(f"{tables.verdict_text(summary)}\n")
    print(tables.summary_text(summary))
    if "grades" in summary:
        from engine.cli import grades_text

        print(f"\n{grades_text.text(summary['grades'])}")
    aside = verdicts.counted(summary["quarantined"], "row")
    print(f"\n{aside} set aside: `adapt show {found.id} ledger`")
    print(f"report  {_page_path(found, store, summary)}")
    return 0


def _rank(found: list[Run], store: Store, *, as_json: bool) -> int:
    """Print the arms of several runs in one order."""
    from engine.stages._ranking import ranked

    arms: list[dict[str, Any]] = []
    nodes: dict[str, dict[str, Artifact]] = {}
    summaries = {run.id: summary_of(run, store) for run in dict.fromkeys(found)}
    for run in dict.fromkeys(found):
        artifacts = _artifacts_by_arm(run, store)
        for arm in summaries[run.id]["arms"]:
            name = run.id if len(artifacts) == 1 else f"{run.id}: {arm['name']}"
            arms.append({**arm, "name": name})
            nodes[name] = artifacts[arm["name"]]
    order = ranked(arms, nodes)
    if as_json:
        told = [{"run": run, "recipe": summary["recipe"]} for run, summary in summaries.items()]
        print(json.dumps({"runs": told, "ranking": order}, indent=1, ensure_ascii=False))
        return 0
    print(tables.ranking_text(order))
    return 0


def _artifacts_by_arm(found: Run, store: Store) -> dict[str, dict[str, Artifact]]:
    """Return the artifacts that the report was made of, by arm and plain node id."""
    plan = found.plan()
    report = next(node for node in plan.nodes if node.stage == REPORT)
    keys = {node.id: node.key for node in plan.nodes}
    by_arm: dict[str, dict[str, Artifact]] = {}
    for label, node_id in report.inputs["artifacts"].items():
        arm, _, plain = label.partition("/")
        artifact = store.get(keys[node_id])
        if artifact is not None:
            by_arm.setdefault(arm, {})[plain] = artifact
    return by_arm


def summary_of(found: Run, store: Store) -> dict[str, Any]:
    """Join what the experiment found with what the run did. Raise RequestError without a report."""
    artifact = _report(found, store)
    if artifact is None:
        raise RequestError(_no_report(found))
    summary: dict[str, Any] = {"ranking": [], **artifact.json("summary.json")}
    nodes = [_node(name, node) for name, node in found.status().nodes.items()]
    from engine.cli import grades

    graded = grades.of_run(found, store)
    return {**summary, "run": found.id, "nodes": nodes} | ({"grades": graded} if graded else {})


def _newest_reported(store: Store, args: argparse.Namespace) -> Run:
    """Return the run asked for; without a name, the newest that has a report, if any has."""
    if args.runs:
        return chosen_run(store, args.runs[0])
    if args.recipe is not None and not Path(args.recipe).is_file():
        message = f"there is no recipe `{args.recipe}`"
        raise RequestError(Diagnostic("not-found", message))
    if args.recipe is not None:
        return chosen_run(store, args.recipe)
    newest = chosen_run(store, None)
    return next((r for r in reversed(runs.all_runs(store)) if _report(r, store)), newest)


def _no_report(found: Run) -> Diagnostic:
    only = found.facts().get("only")
    why = f"it ran `--only {only}`" if only else f"it is {found.status().state}"
    hint = f"`adapt show {found.id}` shows what is there, `adapt status {found.id}` how it went"
    return Diagnostic("no-report", f"run `{found.id}` has no report: {why}", hint=hint)


def _page_path(found: Run, store: Store, summary: Mapping[str, Any]) -> Path:
    """Return where the page is; grades, which came after it, are put into the run's own copy."""
    made: Path = _report(found, store).file("report.html")
    if "grades" not in summary:
        return found.report_path if found.report_path.is_file() else made
    from engine.rendering import graded

    page = graded.with_grades(made.read_text("utf-8"), summary)
    try:
        write_whole(found.report_path, page)  # a new file: the artifact stays as it is
    except OSError:  # a store that may only be read
        return made
    return found.report_path


def _report(found: Run, store: Store) -> Any:
    node = next((node for node in found.plan().nodes if node.stage == REPORT), None)
    return store.get(node.key) if node is not None else None


def _node(name: str, node: NodeStatus) -> dict[str, Any]:
    return {
        "id": name,
        "state": node.state,
        "wall_s": node.wall_s,
        "cpu_s": node.cpu_s,
        "peak_memory_gb": node.peak_memory_gb,
    }
