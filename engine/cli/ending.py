"""How `adapt run` tells the end: for people with the recipe line of a failure, or as a `result`."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.cli import tables

if TYPE_CHECKING:
    from engine.cli.run import Session
    from engine.runtime.executor import Failure, Outcome

REPORT = "report"  # the stage whose failure does not spoil a finished run


def put_report(session: Session) -> None:
    """Put the HTML report into the run's folder, where a person looks for it."""
    artifact = _report_artifact(session)
    if artifact is None or not artifact.file("report.html").is_file():
        return
    path = session.run.report_path
    with suppress(FileExistsError):
        try:
            path.hardlink_to(artifact.file("report.html"))
        except PermissionError:
            import shutil

            shutil.copyfile(artifact.file("report.html"), path)


def _report_artifact(session: Session) -> Any:
    nodes = [node for node in session.plan.nodes if node.stage == REPORT]
    return session.store.get(nodes[0].key) if nodes else None


def print_end(session: Session, outcome: Outcome, is_cached: bool) -> None:
    """Print how it ended: failures with their recipe lines, or what was found."""
    for failure in outcome.failures:
        _print_failure(session, failure)
    if outcome.signal:
        again = f"`{_command(session)}` goes on from here"
        print(f"stopped; finished stages are kept, {again}", file=sys.stderr)
        return
    if outcome.failures:
        print(_counted(session), file=sys.stderr)
    artifact = _report_artifact(session)
    if artifact is not None and session.rehearsal is not None:
        print(f"\n{tables.funnel_text(artifact.json('summary.json'))}\n")
        print(f"report  {session.run.report_path} (its scores are noise)")
    elif artifact is not None:
        print(f"\n{tables.summary_text(artifact.json('summary.json'))}\n")
        print(f"report  {session.run.report_path}")
    if not outcome.failures and not is_cached:
        status = session.run.status()
        peak_gb = max(node.peak_memory_gb for node in status.nodes.values())
        took = tables.duration(status.changed_at - status.started_at)
        print(f"run     {session.run.id}: {took}, at most {peak_gb:.1f} GB in one node")


def _counted(session: Session) -> str:
    """Return how many nodes ended how."""
    nodes = session.run.status().nodes.values()
    states = [node.state for node in nodes]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(states)} nodes: {told}; what is finished is kept"


def _print_failure(session: Session, failure: Failure) -> None:
    print(_failure_text(session, failure), end="\n\n", file=sys.stderr)


def _failure_text(session: Session, failure: Failure) -> str:
    from engine.cli import blamed, errors
    from engine.diagnostics import render

    again = f"  run just this node again: {_command(session, ('--only', failure.node.id))}"
    if failure.node.stage == REPORT:
        head = f"warning[report-failed]: the report could not be made: {failure.message}"
        return "\n".join((head, f"  its log is {failure.log_path}", again))
    lines = [render([blamed.of_failure(failure, session.planned)], errors.read_text)]
    if failure.log_tail:
        lines.append(f"  last lines of {failure.log_path}:")
        lines.extend(f"    {line}" for line in failure.log_tail)
    return "\n".join((*lines, again))


def _command(session: Session, more: Sequence[str] = ()) -> str:
    """Return the command that runs this recipe again, without `--only`."""
    verb = "run" if session.rehearsal is None else "rehearse"
    words = ["adapt", verb, session.args.recipe]
    for override in session.args.overrides:
        words += ["--set", override]
    for name in ("store", "executor", "ray_address"):
        if getattr(session.args, name):
            words += [f"--{name.replace('_', '-')}", getattr(session.args, name)]
    return shlex.join([*words, *more])


def to_json(session: Session, outcome: Outcome, code: int) -> dict[str, Any]:
    """Return how it ended, a `result` of schemas/event.schema.json."""
    from engine.cli import overview

    status = session.run.status()
    artifact = _report_artifact(session)
    has_report = session.run.report_path.exists()
    return {
        "type": "result",
        "time": time.time(),
        "run": session.run.id,
        "recipe": session.plan.recipe,
        "state": status.state,
        "exit_code": code,
        "nodes": [{"id": name, **asdict(node)} for name, node in status.nodes.items()],
        "arms": [
            arm.to_json() for arm in overview.of_run(session.run, session.store).arms.values()
        ],
        "failures": [_failure_json(session, failure) for failure in outcome.failures],
        "report": str(session.run.report_path) if has_report else None,
        "summary": artifact.json("summary.json") if artifact is not None else None,
    } | ({} if session.rehearsal is None else {"rehearsal": session.rehearsal})


def _failure_json(session: Session, failure: Failure) -> dict[str, Any]:
    from engine.cli import blamed

    found = blamed.of_failure(failure, session.planned).to_json()
    return {
        "node": failure.node.id,
        **found,
        "message": failure.message,
        "log": str(failure.log_path),
        "rerun": _command(session, ("--only", failure.node.id)),
    }
