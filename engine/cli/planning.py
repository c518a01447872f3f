"""From the words on the command line to a plan; and where the recipe lines of its nodes are."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine import package_data
from engine.cli import overrides
from engine.cli.compiled import CompiledPlans, default_folder
from engine.diagnostics import Diagnostic, RequestError, Span, nearest
from engine.plan import graph
from engine.plan.stage import Node, Plan
from engine.runtime.digests import DigestCache
from engine.runtime.store import Store

if TYPE_CHECKING:
    from engine.recipe.model import Experiment

_RECIPES = "recipes"


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what was learnt on the way to it."""

    plan: Plan
    recipe: Path
    overrides: tuple[str, ...]
    digests: DigestCache

    @property
    def folder(self) -> Path:
        """Return the folder where relative paths of the recipe start."""
        return self.recipe.parent


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and its overrides."""
    parser.add_argument(
        "recipe", metavar="RECIPE|PLAN", help="path of a recipe, or of a plan made by `plan -o`"
    )
    overrides.add_flags(parser)


def add_frozen(parser: argparse.ArgumentParser) -> None:
    """Add `--frozen`, which `frozen.refuse_drift` carries out."""
    parser.add_argument(
        "--frozen", action="store_true", help="refuse unless all is as RECIPE.lock.json says"
    )


def requested(name: str, changes: Sequence[str], store: Store) -> Planned:
    """Return the plan of a recipe, or a saved plan. Raise RequestError with every mistake."""
    if Path(name).suffix != ".json":
        return load_plan(name, changes, store)
    from engine.cli import saved

    if changes:
        message = "a saved plan cannot be overridden: it is run as it was planned"
        hint = "plan the recipe again with `--set` and `-o`"
        raise RequestError(Diagnostic("plan-is-fixed", message, hint=hint))
    kept = saved.read(Path(name))
    planned = load_plan(str(kept.recipe), kept.overrides, store)
    saved.refuse_stale(kept, planned.plan)
    return planned


def load_plan(recipe: str, changes: Sequence[str], store: Store) -> Planned:
    """Return the plan of a recipe. Raise RequestError with every mistake.

    Writes nothing but an entry of the cache of compiled plans.
    """
    digests = DigestCache(store.cache / "digests")
    plans = CompiledPlans(default_folder(os.environ))
    plan = plans.plan(
        Path(recipe),
        changes,
        lambda: compile_recipe(Path(recipe), changes, digests),
        lambda: digests.used,
        digests.path,
    )
    return Planned(plan, Path(recipe), tuple(changes), digests)


def compile_recipe(recipe: Path, changes: Sequence[str], digests: DigestCache) -> Plan:
    """Read, check and compile a recipe, with the commits of its lock if there is one."""
    from engine.cli import locked
    from engine.recipe.load import load_experiment

    experiment = locked.pinned(load_experiment(recipe, changes), locked.facts(recipe))
    return compile_experiment(recipe, experiment, digests)


def compile_experiment(recipe: Path, experiment: Experiment, digests: DigestCache) -> Plan:
    """Compile what a recipe says, if it fits the models that it names."""
    from engine.catalog import LocalPins
    from engine.forecast import fit
    from engine.models._known import finder_of
    from engine.pipeline import compile_plan

    fit.check(experiment, finder_of(recipe.parent, os.environ))
    pins = LocalPins(recipe.parent, digests)
    return compile_plan(experiment, pins, cache(partial(portable_name, recipe.parent)))


def portable_name(folder: Path, name: str) -> str:
    """Name the file of a recipe line as seen from the recipe: no plan holds an absolute path."""
    path = Path(name).resolve()
    if not path.is_file():  # not a file at all: an override on the command line
        return name
    for root, prefix in ((folder, ""), (package_data.folder(_RECIPES), f"{_RECIPES}/")):
        if path.is_relative_to(root.resolve()):
            return prefix + path.relative_to(root.resolve()).as_posix()
    return Path(os.path.relpath(path, folder.resolve())).as_posix()


def node_named(plan: Plan, name: str) -> Node:
    """Return a node by id. Raise RequestError with the nearest one if there is none."""
    ids = [node.id for node in plan.nodes]
    if name in ids:
        return plan.node(name)
    close = nearest(name, ids)
    hint = f"`{close}` is close" if close else f"the plan has {', '.join(ids)}"
    raise RequestError(Diagnostic("unknown-node", f"the plan has no node `{name}`", hint=hint))


def only(plan: Plan, name: str) -> Plan:
    """Return the part of a plan that one node needs."""
    return graph.with_ancestors(plan, [node_named(plan, name).id])


def origin_of(node: Node, folder: Path) -> Span | None:
    """Return the recipe line that asked for a node, as a path that can be opened from here."""
    if not node.origin:
        return None
    name = str(node.origin["file"])
    for root in (folder, package_data.folder(_RECIPES).parent):
        if (root / name).is_file():
            name = _shortest(root / name)
            break
    return Span(name, int(node.origin["line"]), int(node.origin["column"]))


def _shortest(path: Path) -> str:
    """Return a path from the working folder where it is inside of it, else the whole path."""
    path, here = path.resolve(), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)
