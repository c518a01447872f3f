"""Which line of a recipe, or of a benchmark file, a failed node blames."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.cli import locked, planning
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, Note, RequestError, Span, StageError
from engine.plan import lock
from engine.plan.stage import Node

if TYPE_CHECKING:
    from engine.recipe.model import Path_, Recipe
    from engine.runtime.executor import Failure

_SOURCES: dict[str, Path_] = {
    "collect": ("source",),
    "collect/seed_tasks": ("generator", "tune", "seed_tasks"),
    "collect/replay": ("mix", "replay"),
}


def of_failure(failure: Failure, planned: Planned) -> Diagnostic:
    """Return why a node failed, at the line of the setting at fault or else of the node."""
    message = f"`{failure.node.id}` failed: {failure.message}"
    found = Diagnostic(failure.code, message, hint=failure.hint)
    return placed(found, failure.node, failure.about, planned)


def placed(found: Diagnostic, node: Node, about: tuple[str, ...], planned: Planned) -> Diagnostic:
    """Return what is wrong with a node at the line of the setting at fault, as `StageError` has it.

    Without one, or in a recipe that was changed meanwhile, at the line that asked for the node.
    """
    origin = planning.origin_of(node, planned.folder)
    recipe = _arm_of(node, planned) if about else None
    if recipe is None:
        return replace(found, span=origin)
    if about[0] == "model":
        return replace(found, span=_span_of_model(recipe, about[1]) or origin)
    if node.stage != "collect":
        return replace(found, span=origin)
    found = of_source(found, recipe, _place_of(node), about)
    note = _locked(node, planned) if about == ("revision",) else None
    return replace(found, notes=(*found.notes, note)) if note else found


def of_source(
    found: Diagnostic | StageError, recipe: Recipe, place: Path_, about: tuple[str, ...] = ()
) -> Diagnostic:
    """Return what is wrong with a source at the line of the setting at fault.

    `place` is where the source stands in the recipe: ("source",) or ("benchmark_specs", "slake").
    """
    if isinstance(found, StageError):
        about = found.about
        found = Diagnostic(found.code, str(found), recipe.span(*place), found.hint)
    if place[0] != "benchmark_specs":
        return replace(found, span=recipe.span(*place, *about))
    from engine.recipe import benchmarks

    name = str(place[1])
    span = benchmarks.span_in(name, recipe, "source", *about)
    note = Note("names this benchmark", benchmarks.named_at(name, recipe))
    return replace(found, span=span, notes=(*found.notes, note))


def _place_of(node: Node) -> Path_:
    plain = node.id.partition("@")[0]
    return _SOURCES.get(plain, ("benchmark_specs", plain.removeprefix("collect/")))


def _arm_of(node: Node, planned: Planned) -> Recipe | None:
    """Return the recipe of the first arm that uses a node; None when it was changed meanwhile."""
    from engine.recipe.load import load_experiment

    try:
        experiment = load_experiment(planned.recipe, planned.overrides)
    except RequestError:
        return None
    return experiment.arms.get(node.arms[0]) if node.arms else experiment.recipe


def _span_of_model(recipe: Recipe, name: str) -> Span | None:
    for reference, path in lock.asked(recipe):
        if (reference.kind, reference.name) == ("model", name):
            return recipe.span(*path)
    return None


def _locked(node: Node, planned: Planned) -> Note | None:
    """Return the line of the lock that holds the commit that a node was given."""
    source = node.params["source"]
    source = source.get("source") or source  # of a rehearsal: the first rows of another one
    held = locked.facts(planned.recipe) or {}
    for fact, commit in lock.commits(held, "dataset", str(source["dataset"])).items():
        if commit == source["revision"]:
            hint = f"locked here; `adapt lock {planned.recipe}` follows the hub"
            return Note(hint, locked.span(planned.recipe, fact))
    return None
