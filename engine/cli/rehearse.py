"""`adapt rehearse`: run all of a recipe in minutes, on stand-ins, before it costs a night.

A rehearsal has a store of its own inside the store: what it made is never taken for a result, and
`adapt report` and `adapt status` go on showing runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import overrides, planning, rehearsed, settings
from engine.cli import run as running
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, RequestError
from engine.runtime.digests import DigestCache
from engine.runtime.machine import Settings
from engine.runtime.store import Store

if TYPE_CHECKING:
    from engine.recipe.model import Experiment
    from engine.rehearsal.recipe import Staged
    from engine.runtime.local import Begin

FOLDER = "rehearsal"  # in a store


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "rehearse",
        help="run a recipe on stand-ins: small models, a few rows, any machine",
        description="Runs the whole of a recipe, stage by stage, on a CPU in a minute or two. Each "
        "model is replaced by a small one of the same architecture with random weights, each data "
        "set of the hub by a few made-up rows in its shape; of data on this machine the first rows "
        "are read. Prompts, filters, mix, training and scorers are the recipe's own. It ends with "
        "what it did not check. Nothing of it enters the keys of a run.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="path of a recipe")
    overrides.add_flags(parser)
    real = parser.add_argument_group("what is real")
    real.add_argument(
        "--with-data",
        type=int,
        metavar="N",
        help="read the first N rows of every data set, those of the hub as well",
    )
    real.add_argument(
        "--with-models",
        action="store_true",
        help="run the models themselves, where this machine can hold them",
    )
    parser.add_argument("--only", metavar="NODE", help="rehearse one node and what it needs")
    shown = parser.add_argument_group("what is shown")
    shown.add_argument("--quiet", action="store_true", help="show failures and the end alone")
    shown.add_argument(
        "--json",
        action="store_true",
        help="print events as JSON lines, the last one the result with what stood in for what",
    )
    settings.add_flags(parser)
    parser.set_defaults(frozen=False)


def run(args: argparse.Namespace) -> int:
    """Rehearse a recipe; return the exit code."""
    machine = _on_this_machine(settings.resolve(args, os.environ), args)
    real = Store(machine.store)
    machine = replace(machine, store=machine.store / FOLDER, remote="")
    os.environ.update(_variables(machine))  # before anything heavy is imported
    digests = DigestCache(real.cache / "digests")
    staged = _staged(args, machine)
    staged.warnings += rehearsed.warnings_of_a_run(args.recipe, args.overrides, real)
    plan = planning.compile_experiment(Path(args.recipe), staged.experiment, digests)
    planned = Planned(plan, Path(args.recipe), tuple(args.overrides), digests)
    if args.with_models:
        refused = running.refused(args, machine, planned)
        if refused is not None:
            return refused
    worker = running.worker_command(Path.cwd())
    session = replace(
        running.begin(args, machine, planned, worker),
        start=None if args.with_models else _beginner(),
        rehearsal=rehearsed.to_json(staged, args),
    )
    code = running.carry_out(session, is_cached=running.is_all_cached(session))
    if not args.json:
        print(rehearsed.told(session, args.recipe, code))
    return code


def _on_this_machine(machine: Settings, args: argparse.Namespace) -> Settings:
    """Return the settings of a rehearsal. Raise RequestError for what cannot be one."""
    if machine.executor != "local":
        message = f"a rehearsal runs on this machine, not on `{machine.executor}`"
        raise RequestError(Diagnostic("wrong-flag", message, hint="add `--executor local`"))
    if args.with_data is not None and args.with_data < 1:
        raise RequestError(Diagnostic("wrong-flag", "`--with-data` takes 1 or more rows"))
    fetches = args.with_models or args.with_data is not None
    changed = replace(machine, trackers=(), is_offline=machine.is_offline or not fetches)
    if args.with_models:
        return changed
    return replace(changed, device="cpu", num_gpus=0, pythons={})


def _variables(machine: Settings) -> Mapping[str, str]:
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_CACHE": str((machine.store / "cache" / "datasets").absolute()),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    return {**quiet, **(dict.fromkeys(offline, "1") if machine.is_offline else {})}


def _staged(args: argparse.Namespace, machine: Settings) -> Staged:
    from engine import catalog
    from engine.cli import absent
    from engine.forecast import fit
    from engine.models._known import finder_of
    from engine.plan import lock
    from engine.recipe.load import load_experiment
    from engine.rehearsal.recipe import NUM_ITEMS, NUM_ROWS, Wishes, stage

    recipe = Path(args.recipe)
    experiment: Experiment = load_experiment(recipe, args.overrides)
    finder = finder_of(recipe.parent, os.environ)
    if not machine.is_offline:
        arms = (experiment.recipe, *experiment.arms.values())
        named = [reference for arm in arms for reference, _ in lock.asked(arm)]
        if absent.fetch_configs(named, finder):
            finder = finder_of(recipe.parent, os.environ)
    fit.check(experiment, finder)
    rehearsed.refuse_what_is_far(experiment, finder, args, is_offline=machine.is_offline)
    if not args.json and not args.quiet:
        print(f"making stand-ins for {experiment.recipe.name}", flush=True)
    wishes = Wishes(
        folder=recipe.parent,
        num_rows=args.with_data or NUM_ROWS,
        num_items=args.with_data or NUM_ITEMS,
        fetches=args.with_data is not None,
        with_models=args.with_models,
    )
    if not args.with_models:
        _import_what_nodes_need()
    folder = (machine.store / "cache" / "stand_ins").absolute()
    return stage(experiment, folder, finder, catalog.prompt_text, wishes)


def _import_what_nodes_need() -> None:
    """Import it once, before the first node; see `runtime/forked.py`."""
    import datasets
    import torch
    import transformers

    from engine.backends import _transformers
    from engine.training import loop

    assert _transformers
    assert loop
    torch.set_num_threads(1)  # or the threads of this process would be missing in its copies
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _beginner() -> Begin | None:
    """Return what makes a node's process a copy of this one; None where that does not work."""
    import gc

    from engine.cli import worker
    from engine.runtime import forked

    if not forked.is_possible():
        return None
    gc.collect()
    gc.freeze()  # a copy that looked through all of it for garbage would get all of it as its own
    return forked.beginner(worker.main)
