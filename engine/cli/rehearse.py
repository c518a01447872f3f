"""`adapt rehearse`: run all of a recipe in minutes, on stand-ins, before it costs a night."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import overrides, planning, settings
from engine.cli import run as running
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, RequestError
from engine.runtime import opening
from engine.runtime.digests import DigestCache
from engine.runtime.machine import Settings

if TYPE_CHECKING:
    from engine.recipe.model import Experiment
    from engine.rehearsal.recipe import Staged

_FOLDER = "rehearsal"  # in the cache of a store
_NOT_CHECKED = (
    "that the models and data sets can be downloaded, and that their columns are as the recipe says",
    "how good anything is: random weights write noise, so every score is one of noise",
    "how much time, GPU memory and disk the real thing takes: `adapt plan` says",
)


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "rehearse",
        help="run a recipe on stand-ins: small models, a few rows, any machine",
        description="Runs the whole of a recipe, stage by stage, on small random models of the same "
        "architectures and on a few rows of the same shape. Prompts, filters, mix, training and "
        "scorers are the recipe's own.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="path of a recipe")
    overrides.add_flags(parser)
    parser.add_argument("--quiet", action="store_true", help="show failures and the end alone")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    settings.add_flags(parser)
    parser.set_defaults(frozen=False, only=None)


def run(args: argparse.Namespace) -> int:
    """Rehearse a recipe; return the exit code."""
    machine = _on_this_machine(settings.resolve(args, os.environ))
    store = opening.open_store(machine.store, machine.remote)
    recipe = Path(args.recipe)
    digests = DigestCache(store.cache / "digests")
    staged = _staged(recipe, args.overrides, store.cache / _FOLDER)
    plan = planning.compile_experiment(recipe, staged.experiment, digests)
    planned = Planned(plan, recipe, tuple(args.overrides), digests)
    worker = running.worker_command(Path.cwd())
    session = running.begin(args, machine, planned, worker)
    code = running.carry_out(session, is_cached=running.is_all_cached(session))
    if not args.json:
        print(_told(staged, args.recipe, code))
    return code


def _on_this_machine(machine: Settings) -> Settings:
    if machine.executor != "local":
        message = f"a rehearsal runs on this machine, not on `{machine.executor}`"
        raise RequestError(Diagnostic("wrong-executor", message, hint="leave `--executor` out"))
    return replace(machine, device="cpu", num_gpus=0, is_offline=True, trackers=())


def _staged(recipe: Path, changes: list[str], folder: Path) -> Staged:
    from engine import catalog
    from engine.forecast import fit
    from engine.models._known import finder_of
    from engine.recipe.load import load_experiment
    from engine.rehearsal.recipe import stage

    experiment: Experiment = load_experiment(recipe, changes)
    finder = finder_of(recipe.parent, os.environ)
    fit.check(experiment, finder)
    return stage(experiment, folder.absolute(), finder, catalog.prompt_text)


def _told(staged: Staged, recipe: str, code: int) -> str:
    """Return what stood in for what, and what a rehearsal cannot tell."""
    lines = ["stand-ins (random weights, made-up rows)"]
    lines += [f"  {name}: a small {kind}" for name, kind in staged.models.items()]
    lines += [f"  {place}: rows like those of {name}" for place, name in staged.sources.items()]
    lines.append("not checked")
    lines += [f"  {what}" for what in (*staged.unchecked, *_NOT_CHECKED)]
    end = "every stage ran" if code == 0 else "it did not come to its end"
    return "\n".join((*lines, f"rehearsal of {recipe}: {end}"))
