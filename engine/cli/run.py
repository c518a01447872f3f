"""`adapt run`: execute a recipe. Finished stages are not run again, after a kill or a change."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from engine import __version__
from engine.cli import executors, kept, planning, settings, tables
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, ExitCode, RequestError
from engine.plan import graph
from engine.plan.stage import Node, Plan
from engine.runtime import opening, outlook, runs
from engine.runtime.eventlog import EventLog
from engine.runtime.machine import Settings
from engine.runtime.runs import Run
from engine.runtime.store import Store

if TYPE_CHECKING:
    from engine.cli.audience import Audience
    from engine.cli.outlays import Outlay
    from engine.plan.estimate import Figure
    from engine.runtime.executor import Failure, Outcome
    from engine.runtime.outlook import View
    from engine.runtime.scheduler import Demand

REPORT = "report"  # the stage whose failure does not spoil a finished run


@dataclass(frozen=True, slots=True)
class Session:
    """All that one `adapt run` works with."""

    args: argparse.Namespace
    settings: Settings
    store: Store
    planned: Planned
    plan: Plan  # the part that is run
    run: Run
    worker: Sequence[str]  # arguments of the interpreter that make it a worker


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run", help="run a recipe; finished stages are not run again", allow_abbrev=False
    )
    planning.add_recipe(parser)
    planning.add_frozen(parser)
    parser.add_argument("--only", metavar="NODE", help="run one node and what it needs")
    shown = parser.add_argument_group("what is shown")
    shown.add_argument("--quiet", action="store_true", help="show failures and the end alone")
    shown.add_argument(
        "--json",
        action="store_true",
        help="print events as JSON lines, the last one the result (`adapt schema event`); what "
        "people look at goes to stderr; with --quiet the result alone",
    )
    settings.add_flags(parser)
    executors.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run a recipe; return the exit code."""
    machine = settings.resolve(args, os.environ)
    executors.refuse_stray_flags(args, machine)
    planned = planning.requested(
        args.recipe, args.overrides, opening.open_store(machine.store, machine.remote)
    )
    if args.frozen:
        from engine.cli import frozen

        frozen.refuse_drift(planned, args, os.environ, reads_models=True)
    if machine.executor in executors.JOB_FILES:
        return executors.write_job_file(args, machine, planned)
    return run_planned(args, machine, planned, worker=worker_command(Path.cwd()))


def worker_command(working_folder: Path) -> tuple[str, ...]:
    """Return the arguments that make the interpreter a worker.

    `-P` keeps a folder `engine` that happens to lie in the working folder from being imported,
    unless it is this very engine, run from its checkout.
    """
    is_checkout = Path(__file__).resolve().parents[2] == working_folder.resolve()
    return (*(() if is_checkout else ("-P",)), "-m", "engine.cli.worker")


def run_planned(
    args: argparse.Namespace, machine: Settings, planned: Planned, *, worker: Sequence[str]
) -> int:
    """Run a compiled plan; return the exit code."""
    session = _begin(args, machine, planned, worker)
    is_cached = _is_cached(session)
    with kept.listening(sys.argv[1:] if is_cached else ()) as told:
        code = _run(session, is_cached=is_cached)
    about = (planned, session.plan, session.store, session.run)
    if told is not None and not code:
        kept.keep(told, *about)
    if not (is_cached or code) and _is_cached(session):
        kept.foretell(
            sys.argv[1:], *about, lambda run: _run(replace(session, run=run), is_cached=True)
        )
    return code


def _is_cached(session: Session) -> bool:
    return set(outlook.states(session.plan, session.store).values()) <= {outlook.CACHED}


def _run(session: Session, *, is_cached: bool) -> int:
    """Execute what was begun, and tell of it; return the exit code."""
    args, planned = session.args, session.planned
    demands: dict[str, Demand] = {}
    if is_cached:
        _say(session, f"every stage is cached ({len(session.plan.nodes)} nodes): nothing to run")
    else:
        view = outlook.look(session.plan, session.store)
        _say(session, tables.plan_brief(session.plan.recipe, view.nodes))
        demands = _demands(session, view)
    outcome = _execute(session, is_cached, demands)
    _put_report(session)
    code = _exit_code(outcome)
    moved = _moved_downloads(planned) if args.frozen and not code else []
    if moved:
        code = int(ExitCode.GATE_SAID_NO)
    if args.json:
        print(json.dumps(_json(session, outcome, code)))
    else:
        _print_end(session, outcome, is_cached)
    if moved:
        from engine.cli import errors
        from engine.diagnostics import render

        print(render(moved, errors.read_text), file=sys.stderr)
    return code


def _say(session: Session, text: str) -> None:
    from engine.cli import audience

    if not session.args.quiet:
        audience.say(text, _stream(session.args))


def _stream(args: argparse.Namespace) -> TextIO:
    """Return where people look: with `--json`, stdout belongs to a machine."""
    return sys.stderr if args.json else sys.stdout


def _begin(
    args: argparse.Namespace, machine: Settings, planned: Planned, worker: Sequence[str]
) -> Session:
    """Choose the part of the plan to run, and make the run's folder."""
    store = opening.open_store(machine.store, machine.remote)
    plan = planned.plan if args.only is None else planning.only(planned.plan, args.only)
    facts = {
        "recipe_path": os.path.abspath(planned.recipe),  # noqa: PTH100  # links stay as given
        "recipe_folder": str(planned.folder),
        "overrides": list(planned.overrides),
        "only": args.only,
        "plan_digest": graph.digest(plan),
        "engine": __version__,
        "settings": {**asdict(machine), "store": str(machine.store)},
        "argv": sys.argv[1:],
    }
    try:
        created = runs.create(store, plan, facts)
        planned.digests.save()
    except OSError as error:
        message = f"the store `{store.root}` cannot be written: {error.strerror}"
        hint = "choose another folder with `--store` or ADAPT_STORE"
        raise RequestError(Diagnostic("store-not-writable", message, hint=hint)) from error
    return Session(args, machine, store, planned, plan, created, worker)


def _demands(session: Session, view: View) -> dict[str, Demand]:
    """Return what each node will probably take at its peak, where that is known."""
    from engine.cli import outlays
    from engine.runtime.scheduler import Demand

    planned = replace(session.planned, plan=session.plan)
    whole = outlays.outlay(planned, view, session.store)
    _warn_of_disk(whole)
    found = whole.forecasts
    return {
        item.node.id: Demand(
            memory_gb=item.estimate.peak_memory_gb if item.estimate else 0.0,
            gpu_memory_gb=_value(found[item.node.id].gpu_memory_gb),
            disk_gb=_value(found[item.node.id].disk_gb),
        )
        for item in view.nodes
    }


def _warn_of_disk(found: Outlay) -> None:
    needed_gb = found.sums.get("disk_gb", 0.0)
    if found.free_gb is not None and needed_gb > found.free_gb:
        print(
            f"warning[disk-may-fill]: the stages to run will write about {needed_gb:.1f} GB, "
            f"{found.free_gb:.1f} GB are free at the store",
            file=sys.stderr,
        )


def _value(figure: Figure | None) -> float:
    return figure.value if figure is not None else 0.0


def _execute(session: Session, is_cached: bool, demands: Mapping[str, Demand]) -> Outcome:
    from engine.runtime.executor import Executor

    launcher = executors.launcher(
        session.settings, session.worker, session.run.path, has_work=not is_cached
    )
    audience = _audience(session, is_cached)
    try:
        return Executor(
            plan=session.plan,
            store=session.store,
            run=session.run,
            settings=session.settings,
            folder=session.planned.folder,
            launcher=launcher,
            emit=audience.emit,
            demands=demands,
            reads=_reads,
        ).execute()
    finally:
        launcher.close()
        audience.close()


def _audience(session: Session, is_cached: bool) -> Audience:
    """Return where the events go; a run with nothing to do has nothing to show."""
    from engine.cli.audience import Audience

    args, stream = session.args, _stream(session.args)
    found = Audience(EventLog(session.run.events_path), stream)
    if args.json and not args.quiet:
        found.lines = sys.stdout
    if not is_cached:
        from engine.cli import overview, terminal

        shown = overview.of_plan(session.plan, session.store)
        found.display = terminal.display(stream, shown, is_quiet=args.quiet)
    return found


def _reads(node: Node) -> Mapping[str, tuple[str, ...]]:
    from engine import catalog

    with suppress(KeyError):  # a plan of other stages, run by another worker
        return catalog.stage(node.stage).reads(node.params)
    return {}


def _moved_downloads(planned: Planned) -> list[Diagnostic]:
    from engine.cli import frozen

    return frozen.downloads_that_moved(planned, os.environ)


def _exit_code(outcome: Outcome) -> int:
    if outcome.signal:
        is_term = outcome.signal == signal.SIGTERM
        return int(ExitCode.STOPPED_RESUMABLE if is_term else ExitCode.INTERRUPTED)
    if any(failure.node.stage != REPORT for failure in outcome.failures):
        return int(ExitCode.STAGE_FAILED)
    return int(ExitCode.DONE)


def _put_report(session: Session) -> None:
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


def _print_end(session: Session, outcome: Outcome, is_cached: bool) -> None:
    for failure in outcome.failures:
        _print_failure(session, failure)
    if outcome.signal:
        again = f"`{_command(session)}` goes on from here"
        print(f"stopped; finished stages are kept, {again}", file=sys.stderr)
        return
    if outcome.failures:
        print(_counted(session), file=sys.stderr)
    artifact = _report_artifact(session)
    if artifact is not None:
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
    from engine.cli import errors
    from engine.diagnostics import render

    again = f"  run just this node again: {_command(session, ('--only', failure.node.id))}"
    if failure.node.stage == REPORT:
        head = f"warning[report-failed]: the report could not be made: {failure.message}"
        return "\n".join((head, f"  its log is {failure.log_path}", again))
    origin = planning.origin_of(failure.node, session.planned.folder)
    what = f"`{failure.node.id}` failed: {failure.message}"
    lines = [render([Diagnostic("stage-failed", what, origin, failure.hint)], errors.read_text)]
    if failure.log_tail:
        lines.append(f"  last lines of {failure.log_path}:")
        lines.extend(f"    {line}" for line in failure.log_tail)
    return "\n".join((*lines, again))


def _command(session: Session, more: Sequence[str] = ()) -> str:
    """Return the command that runs this recipe again, without `--only`."""
    words = ["adapt", "run", session.args.recipe]
    for override in session.args.overrides:
        words += ["--set", override]
    for name in ("store", "executor", "ray_address"):
        if getattr(session.args, name):
            words += [f"--{name.replace('_', '-')}", getattr(session.args, name)]
    return shlex.join([*words, *more])


def _json(session: Session, outcome: Outcome, code: int) -> dict[str, Any]:
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
    }


def _failure_json(session: Session, failure: Failure) -> dict[str, Any]:
    origin = planning.origin_of(failure.node, session.planned.folder)
    found = Diagnostic("stage-failed", failure.message, origin, failure.hint).to_json()
    return {
        "node": failure.node.id,
        **found,
        "log": str(failure.log_path),
        "rerun": _command(session, ("--only", failure.node.id)),
    }
