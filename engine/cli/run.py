"""`adapt run`: execute a recipe. Finished stages are not run again, after a kill or a change."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from engine import __version__
from engine.cli import ending, executors, kept, planning, settings, tables
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
    from engine.cli.trackers import Started
    from engine.plan.estimate import Figure
    from engine.runtime.executor import Outcome
    from engine.runtime.local import Begin
    from engine.runtime.outlook import View
    from engine.runtime.scheduler import Demand


@dataclass(frozen=True, slots=True)
class Prepared:
    """The part of a plan that is run, as the store sees it, and what it will take."""

    planned: Planned
    view: View
    outlay: Outlay


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
    prepared: Prepared | None = None  # where it was looked at before
    start: Begin | None = None  # what starts a worker, if not an interpreter does
    rehearsal: Mapping[str, Any] | None = None  # what stood in for what


@dataclass(frozen=True, slots=True)
class Prospect:
    """What nodes will probably take, by id; those of which nothing is known are left out."""

    demands: Mapping[str, Demand] = field(default_factory=dict)
    expected_s: Mapping[str, float] = field(default_factory=dict)


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
    plan = _chosen(args, planned)
    store = opening.open_store(machine.store, machine.remote)
    prepared = None
    if not _is_cached(plan, store):
        prepared = _prepared(planned, plan, store)
        refused = _refused(args, machine, prepared)
        if refused is not None:
            return refused
    session = replace(begin(args, machine, planned, worker), prepared=prepared)
    is_cached = prepared is None
    with kept.listening(sys.argv[1:] if is_cached else ()) as told:
        code = carry_out(session, is_cached=is_cached)
    about = (planned, session.plan, session.store, session.run)
    if told is not None and not code:
        kept.keep(told, *about)
    if not (is_cached or code) and is_all_cached(session):
        kept.foretell(
            sys.argv[1:], *about, lambda run: carry_out(replace(session, run=run), is_cached=True)
        )
    return code


def is_all_cached(session: Session) -> bool:
    """Tell whether there is nothing left to run."""
    return _is_cached(session.plan, session.store)


def _is_cached(plan: Plan, store: Store) -> bool:
    return set(outlook.states(plan, store).values()) <= {outlook.CACHED}


def _chosen(args: argparse.Namespace, planned: Planned) -> Plan:
    """Return the part of the plan to run."""
    return planned.plan if args.only is None else planning.only(planned.plan, args.only)


def _prepared(planned: Planned, plan: Plan, store: Store) -> Prepared:
    from engine.cli import outlays

    chosen = replace(planned, plan=plan)
    view = outlook.look(plan, store)
    return Prepared(chosen, view, outlays.outlay(chosen, view, store))


def refused(args: argparse.Namespace, machine: Settings, planned: Planned) -> int | None:
    """Print why this machine cannot run a plan; return the exit code, or None where it can."""
    store = opening.open_store(machine.store, machine.remote)
    return _refused(args, machine, _prepared(planned, _chosen(args, planned), store))


def _refused(args: argparse.Namespace, machine: Settings, prepared: Prepared) -> int | None:
    from engine.cli import preflight

    nodes = [item.node for item in prepared.view.nodes if item.state != outlook.CACHED]
    here = preflight.hardware(os.environ)
    ground = preflight.Ground(prepared.planned, nodes, prepared.outlay, machine, here)
    return preflight.refuse(args, ground)


def carry_out(session: Session, *, is_cached: bool) -> int:
    """Execute what was begun, and tell of it; return the exit code."""
    args, planned = session.args, session.planned
    prospect = Prospect()
    if is_cached:
        _say(session, f"every stage is cached ({len(session.plan.nodes)} nodes): nothing to run")
    elif session.rehearsal is None:  # what stand-ins take says nothing of a run
        prepared = session.prepared or _prepared(planned, session.plan, session.store)
        _say(session, tables.plan_brief(session.plan.recipe, prepared.view.nodes))
        prospect = _prospect(prepared)
    outcome = _execute(session, is_cached, prospect)
    ending.put_report(session)
    if not is_cached:
        session.store.keep_run(session.run.id)
    code = _exit_code(outcome)
    moved = _moved_downloads(planned) if args.frozen and not code else []
    if moved:
        code = int(ExitCode.GATE_SAID_NO)
    if args.json:
        print(json.dumps(ending.to_json(session, outcome, code)))
    else:
        ending.print_end(session, outcome, is_cached)
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


def begin(
    args: argparse.Namespace, machine: Settings, planned: Planned, worker: Sequence[str]
) -> Session:
    """Choose the part of the plan to run, and make the run's folder."""
    store = opening.open_store(machine.store, machine.remote)
    plan = _chosen(args, planned)
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


def _prospect(prepared: Prepared) -> Prospect:
    """Return what each node will probably take, where that is known."""
    from engine.cli import outlays, overview
    from engine.forecast import least
    from engine.runtime.scheduler import Demand

    view, found = prepared.view, prepared.outlay.forecasts
    for warning in prepared.outlay.warnings:
        print(outlays.line(warning), file=sys.stderr)
    demands = {
        item.node.id: Demand(
            memory_gb=item.estimate.peak_memory_gb if item.estimate else 0.0,
            gpu_memory_gb=_value(found[item.node.id].gpu_memory_gb),
            disk_gb=_value(found[item.node.id].disk_gb),
            num_gpus=least.gpus_of(item.node),
        )
        for item in view.nodes
    }
    hours = {name: forecast.wall_h for name, forecast in found.items()}
    seconds = {name: h.value * 3600 for name, h in hours.items() if h is not None}
    guesses = {item.node.id: item.estimate for item in view.nodes}
    return Prospect(demands, overview.expected(guesses, seconds))


def _value(figure: Figure | None) -> float:
    return figure.value if figure is not None else 0.0


def _execute(session: Session, is_cached: bool, prospect: Prospect) -> Outcome:
    from engine.runtime.executor import Executor

    launcher = executors.launcher(
        session.settings,
        session.worker,
        session.run.path,
        has_work=not is_cached,
        begin=session.start,
    )
    audience = _audience(session, is_cached, prospect.expected_s)
    tracked = [] if is_cached else _begin_trackers(session)
    try:
        return Executor(
            plan=session.plan,
            store=session.store,
            run=session.run,
            settings=session.settings,
            folder=session.planned.folder,
            launcher=launcher,
            emit=audience.emit,
            demands=prospect.demands,
            reads=_reads,
        ).execute()
    finally:
        launcher.close()
        audience.close()
        if tracked:
            from engine.cli import trackers

            trackers.end(tracked)


def _begin_trackers(session: Session) -> list[Started]:
    names = session.settings.trackers
    if not names:
        return []
    from engine.cli import trackers

    flags = [word for word in session.worker if word == "-P"]
    return trackers.begin(session.run.path, session.store.root, names, flags)


def _audience(session: Session, is_cached: bool, expected_s: Mapping[str, float]) -> Audience:
    """Return where the events go; a run with nothing to do has nothing to show."""
    from engine.cli.audience import Audience

    args, stream = session.args, _stream(session.args)
    found = Audience(EventLog(session.run.events_path), stream)
    if args.json and not args.quiet:
        found.lines = sys.stdout
    if not is_cached:
        from engine.cli import overview, terminal

        shown = overview.of_plan(session.plan, session.store, expected_s)
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
        is_interrupt = outcome.signal == signal.SIGINT
        return int(ExitCode.INTERRUPTED if is_interrupt else ExitCode.STOPPED_RESUMABLE)
    if any(failure.node.stage != ending.REPORT for failure in outcome.failures):
        return int(ExitCode.STAGE_FAILED)
    return int(ExitCode.DONE)
