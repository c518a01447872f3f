"""Path -> Experiment: reads, composes, checks and binds a recipe, its arms and its benchmarks.

Nothing here stops at the first mistake: a RequestError carries all that could be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import plugin
from engine.diagnostics import Diagnostic, Note, RequestError, Span
from engine.recipe import benchmarks, checks, compose, params, prompts, schema
from engine.recipe.model import BenchmarkSpec, Experiment, Recipe
from engine.recipe.sections import Places, Section, Sections, Spans
from engine.recipe.source import Node, places
from engine.recipe.subject import Subject

MAIN = "main"
_BOUND_APART = ("benchmark_specs", "folder", "spans")


def load_experiment(
    path: Path, overrides: Sequence[str] = (), *, text: str | None = None
) -> Experiment:
    """Load a recipe with its matrix arms. Raise RequestError with every diagnostic.

    A `text` is read instead of what the file holds.
    """
    family = compose.read_with_parents(path, compose.shown_path(path), text)
    mistakes: list[Diagnostic] = []
    tree = compose.overridden(family.tree, overrides, mistakes)
    try:
        return _experiment(tree, path.parent, mistakes)
    except RequestError as error:
        raise RequestError(*map(family.told, error.diagnostics)) from None


def experiment_of(raw: Mapping[str, Any], folder: Path) -> Experiment:
    """Bind a recipe that is given as resolved JSON. Raise RequestError with every diagnostic."""
    tree = compose.from_plain(raw, Span("a resolved recipe", 0, 0))
    return _experiment(tree, folder, [])


def _experiment(tree: Node, folder: Path, mistakes: list[Diagnostic]) -> Experiment:
    loader = _Loader(folder, mistakes)
    recipes = []
    arms = _arms(tree, mistakes)
    known = set(mistakes)
    for arm, arm_tree in arms:
        num_before = len(mistakes)
        recipes.append((arm, loader.recipe(arm_tree)))
        own = [item for item in mistakes[num_before:] if item not in known]
        mistakes[num_before:] = [_told(item, arm, tree) for item in own]
        known.update(mistakes[num_before:])
    if mistakes:
        raise RequestError(*dict.fromkeys(mistakes))
    bound = {arm: recipe for arm, recipe in recipes if recipe is not None}
    recipe = bound.pop("")
    return Experiment(recipe=recipe, arms=bound or {MAIN: recipe}, raw=_raw(recipe, tree))


def _told(item: Diagnostic, arm: str, tree: Node) -> Diagnostic:
    """Return a diagnostic that names its arm, unless it points at the arm's own lines."""
    matrix = tree.entries().get("matrix")
    entry = matrix.node.entries().get(arm) if matrix and arm else None
    if entry is None or item.span in {p.value for p in places(entry.node).values()}:
        return item
    if item.span in {p.key for p in places(entry.node).values()}:
        return item
    return replace(item, notes=(*item.notes, Note(f"is the matrix arm `{arm}`", entry.key)))


def _arms(tree: Node, mistakes: list[Diagnostic]) -> list[tuple[str, Node]]:
    """Return the recipe itself under "", then each matrix arm under its name."""
    trees = [("", tree)]
    matrix = tree.entries().get("matrix")
    for arm, entry in matrix.node.entries().items() if matrix else ():
        trees.append((arm, compose.with_changes(tree, entry.node, mistakes)))
    return trees


class _Loader:
    """Checks and binds the arms of one recipe; what an arm leaves as it was is done once."""

    def __init__(self, folder: Path, mistakes: list[Diagnostic]) -> None:
        self._folder = folder
        self._mistakes = mistakes
        self._frame = schema.load("recipe")
        self._open_frame = {**self._frame, "required": []}  # for an arm's changed sections alone
        self._sections = Sections()
        self._is_well_formed = True  # what checks across sections stand on
        self._first: dict[str, Section] | None = None  # of the recipe itself, which comes first
        self._specs: dict[int, dict[str, BenchmarkSpec]] = {}  # by the section `benchmarks`
        self._bound: dict[tuple[object, ...], Any] = {}

    def recipe(self, tree: Node) -> Recipe | None:
        """Check and bind one arm; None after noting what is wrong with it or an earlier one."""
        sections = self._sections.of(tree)
        unresolved: set[Span] = set()
        if any(section.refers for name, section in sections.items() if name != "matrix"):
            tree = compose.with_references(tree, self._mistakes)
            sections = self._sections.of(tree)
            unresolved = {  # each of them is a mistake already; the matrix is resolved by arm
                span
                for name, section in sections.items()
                if name != "matrix"
                for span in compose.unresolved(section.entry.node)
            }
        subject = Subject(Places(tree, sections))
        self._check_sections(tree, sections, subject, unresolved)
        specs = self._benchmarks(sections.get("benchmarks"), subject)
        if self._is_well_formed:
            instance = {name: section.instance for name, section in sections.items()}
            self._mistakes += checks.mistakes(instance, specs, subject)
            if self._first is sections:
                self._mistakes += checks.equal_arms(instance, subject)
        return None if self._mistakes else self._recipe(sections, specs, subject)

    def _check_sections(
        self, tree: Node, sections: dict[str, Section], subject: Subject, unresolved: set[Span]
    ) -> None:
        """Note every way in which the sections that no earlier arm had break the schema."""
        first, self._first = self._first, self._first or sections
        is_arm = first is not None
        part: Any = tree.plain() if not is_arm else None
        if first is not None:
            part = {n: s.instance for n, s in sections.items() if s is not first.get(n)}
        frame = self._open_frame if is_arm else self._frame
        of_frame = schema.mistakes(part, frame, subject)
        self._is_well_formed &= not of_frame
        found = [
            *of_frame,
            *params.mistakes_in_uses(part, self._frame, self._frame, subject),
            *prompts.mistakes(part, self._frame, subject),
            *params.unknown_names(part, self._frame, subject),
        ]
        self._mistakes += [item for item in found if item.span not in unresolved]

    def _benchmarks(self, section: Section | None, subject: Subject) -> dict[str, BenchmarkSpec]:
        """Read every benchmark that the recipe names, but the built-in hold-out."""
        known = self._specs.get(id(section))
        if known is not None:
            return known
        chosen = section.instance if section and isinstance(section.instance, Mapping) else {}
        specs = self._specs[id(section)] = {}
        shelf = benchmarks.Shelf(self._folder)
        scorer = chosen.get("scorer", schema.default("recipe", "benchmarks", "scorer"))
        for name, span in _benchmark_names(chosen, subject):
            try:
                found = shelf.find(name, span)
            except RequestError as error:
                self._mistakes += error.diagnostics
                continue
            specs[name] = found.spec
            if scorer in plugin.names("scorers"):
                note = Note("names this benchmark", span)
                self._mistakes += [
                    replace(item, notes=(note,))
                    for item in benchmarks.unknown_metrics(found, scorer)
                ]
        return specs

    def _recipe(
        self,
        sections: Mapping[str, Section],
        specs: Mapping[str, BenchmarkSpec],
        subject: Subject,
    ) -> Recipe:
        has = {name: section.instance for name, section in sections.items()}
        parts = checks.part_defaults(has)
        fields = {
            name: self._bound_section(name, kind, sections.get(name), parts)
            for name, kind in plugin.hints_of(Recipe).items()
            if name not in _BOUND_APART
        }
        folder = str(self._folder)
        return Recipe(**fields, benchmark_specs=specs, folder=folder, spans=Spans(subject))

    def _bound_section(
        self, name: str, kind: Any, section: Section | None, parts: Mapping[str, float]
    ) -> Any:
        """Return a section as the recipe holds it: equal sections of two arms are one value."""
        key = (name, id(section), *(parts.values() if name == "mix" else ()))
        if key not in self._bound:
            written = {name: section.instance} if section else {}
            shape = {**self._frame, "properties": {name: self._frame["properties"][name]}}
            value = schema.filled(written, shape, self._frame)[name]
            if name == "mix":
                value = {**value, "parts": {**parts, **value["parts"]}}
            self._bound[key] = plugin.bind(kind, value)
        return self._bound[key]


def _benchmark_names(section: Mapping[str, Any], subject: Subject) -> list[tuple[str, Span]]:
    return [
        (name, subject.value("benchmarks", group, index))
        for group in ("domain", "general")
        if isinstance(section.get(group), list)
        for index, name in enumerate(section[group])
        if isinstance(name, str) and name != benchmarks.HOLDOUT
        if "${" not in name  # a reference to nothing is told as such
    ]


def _raw(recipe: Recipe, tree: Node) -> dict[str, Any]:
    """Return the recipe as it would be written with every default spelled out."""
    names = [name for name in plugin.hints_of(Recipe) if name not in _BOUND_APART]
    raw = {name: params.as_written(plugin.unbind(getattr(recipe, name))) for name in names}
    matrix = tree.entries().get("matrix")
    arms = {"matrix": matrix.node.plain()} if matrix else {}
    return {"recipe": 1, **raw, **arms}
