"""Path -> Experiment: reads, composes, checks and binds a recipe, its arms and its benchmarks.

Nothing here stops at the first mistake: a RequestError carries all that could be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import plugin
from engine.diagnostics import Diagnostic, RequestError, Span
from engine.recipe import benchmarks, checks, compose, params, prompts, schema
from engine.recipe.model import BenchmarkSpec, Experiment, Recipe
from engine.recipe.source import Node, Place, places
from engine.recipe.subject import Subject

MAIN = "main"
_BOUND_APART = ("benchmark_specs", "folder", "spans")


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Load a recipe with its matrix arms. Raise RequestError with every diagnostic."""
    tree = compose.read_with_parents(path, compose.shown_path(path))
    mistakes: list[Diagnostic] = []
    tree = compose.overridden(tree, overrides, mistakes)
    recipes = [
        (arm, _recipe(arm_tree, path.parent, mistakes)) for arm, arm_tree in _arms(tree, mistakes)
    ]
    if mistakes:
        raise RequestError(*dict.fromkeys(mistakes))
    bound = {arm: recipe for arm, recipe in recipes if recipe is not None}
    recipe = bound.pop("")
    return Experiment(recipe=recipe, arms=bound or {MAIN: recipe}, raw=_raw(recipe, tree))


def _arms(tree: Node, mistakes: list[Diagnostic]) -> list[tuple[str, Node]]:
    """Return the recipe itself under "", then each matrix arm under its name."""
    trees = [("", tree)]
    matrix = tree.entries().get("matrix")
    for arm, entry in matrix.node.entries().items() if matrix else ():
        trees.append((arm, compose.with_changes(tree, entry.node, mistakes)))
    return trees


def _recipe(tree: Node, folder: Path, mistakes: list[Diagnostic]) -> Recipe | None:
    """Check and bind one arm; None after noting what is wrong."""
    tree = compose.with_references(tree, mistakes)
    frame = schema.load("recipe")
    instance = tree.plain()
    subject = Subject(places(tree))
    of_frame = schema.mistakes(instance, frame, subject)
    found = [
        *of_frame,
        *params.mistakes_in_uses(instance, frame, frame, subject),
        *prompts.unknown(instance, frame, subject),
        *params.unknown_names(instance, frame, subject),
    ]
    unresolved = compose.unresolved(tree)  # each of them is a mistake already
    mistakes += [item for item in found if item.span not in unresolved]
    specs = _benchmarks(instance, folder, subject, mistakes)
    if not of_frame:
        mistakes += checks.mistakes(instance, subject)
    return None if mistakes else _bound(instance, frame, specs, folder, subject)


def _benchmarks(
    instance: Mapping[str, Any], folder: Path, subject: Subject, mistakes: list[Diagnostic]
) -> dict[str, BenchmarkSpec]:
    """Read every benchmark that the recipe names, but the built-in hold-out."""
    section = instance.get("benchmarks") if isinstance(instance, Mapping) else None
    section = section if isinstance(section, Mapping) else {}
    scorer = section.get("scorer", schema.default("recipe", "benchmarks", "scorer"))
    specs = {}
    for name, span in _benchmark_names(section, subject):
        try:
            found = benchmarks.find(name, folder, span)
        except RequestError as error:
            mistakes += error.diagnostics
            continue
        specs[name] = found.spec
        if scorer in plugin.names("scorers"):
            mistakes += benchmarks.unknown_metrics(found, scorer)
    return specs


def _benchmark_names(section: Mapping[str, Any], subject: Subject) -> list[tuple[str, Span]]:
    return [
        (name, subject.value("benchmarks", group, index))
        for group in ("domain", "general")
        if isinstance(section.get(group), list)
        for index, name in enumerate(section[group])
        if isinstance(name, str) and name != benchmarks.HOLDOUT
    ]


def _bound(
    instance: Mapping[str, Any],
    frame: schema.Schema,
    specs: Mapping[str, BenchmarkSpec],
    folder: Path,
    subject: Subject,
) -> Recipe:
    values = schema.filled(instance, frame, frame)
    values["mix"]["parts"] = checks.part_defaults(values) | values["mix"]["parts"]
    hints = plugin.hints_of(Recipe)
    fields = {
        name: plugin.bind(kind, values[name])
        for name, kind in hints.items()
        if name not in _BOUND_APART
    }
    return Recipe(**fields, benchmark_specs=dict(specs), folder=str(folder), spans=_spans(subject))


def _spans(subject: Subject) -> dict[Place, Span]:
    """Return the place to show for each value: a section is shown at its key."""
    return {
        place: subject.key(*place) if subject.is_section(place) else located.value
        for place, located in subject.places.items()
    }


def _raw(recipe: Recipe, tree: Node) -> dict[str, Any]:
    """Return the recipe as it would be written with every default spelled out."""
    names = [name for name in plugin.hints_of(Recipe) if name not in _BOUND_APART]
    raw = {name: params.as_written(plugin.unbind(getattr(recipe, name))) for name in names}
    matrix = tree.entries().get("matrix")
    arms = {"matrix": matrix.node.plain()} if matrix else {}
    return {"recipe": 1, **raw, **arms}
