"""From the words on the command line to a plan; and where the recipe lines of its nodes are."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

from engine import package_data
from engine.diagnostics import Diagnostic, RequestError, Span, nearest
from engine.plan import graph
from engine.plan.stage import Node, Plan
from engine.runtime.digests import DigestCache
from engine.runtime.store import Store

_RECIPES = "recipes"


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what was learnt on the way to it."""

    plan: Plan
    folder: Path  # relative paths of the recipe start here
    digests: DigestCache


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and its overrides."""
    parser.add_argument("recipe", metavar="RECIPE", help="path of a recipe")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="A.B=C",
        action="append",
        default=[],
        help="override one value of the recipe; may be repeated",
    )


def load_plan(recipe: str, overrides: list[str], store: Store) -> Planned:
    """Read, check and compile a recipe. Raise RequestError with every mistake. Writes nothing."""
    from engine.catalog import LocalPins
    from engine.forecast import fit
    from engine.models._known import finder_of
    from engine.pipeline import compile_plan
    from engine.recipe.load import load_experiment

    experiment = load_experiment(Path(recipe), overrides)
    folder = Path(experiment.recipe.folder)
    fit.check(experiment, finder_of(folder, os.environ))
    digests = DigestCache(store.cache / "digests.json")
    plan = compile_plan(experiment, LocalPins(folder, digests.digest_file))
    return Planned(with_portable_origins(plan, folder), folder, digests)


def with_portable_origins(plan: Plan, folder: Path) -> Plan:
    """Name the files of recipe lines as seen from the recipe: no plan holds an absolute path."""
    names = {str(node.origin["file"]) for node in plan.nodes if node.origin}
    portable = {name: _portable(name, folder) for name in names}
    nodes = (
        replace(node, origin={**node.origin, "file": portable[str(node.origin["file"])]})
        if node.origin
        else node
        for node in plan.nodes
    )
    return Plan(plan.recipe, tuple(nodes))


def _portable(name: str, folder: Path) -> str:
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
