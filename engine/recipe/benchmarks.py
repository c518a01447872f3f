"""Benchmark files: found by name beside the recipe or among the packaged ones, checked, bound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine import package_data, plugin
from engine.diagnostics import Diagnostic, RequestError, Span, nearest
from engine.recipe import params, prompts, schema
from engine.recipe.compose import shown_path
from engine.recipe.model import BenchmarkSpec, Recipe
from engine.recipe.sections import Spans
from engine.recipe.source import Node, places, read_file
from engine.recipe.subject import Subject, shortened

HOLDOUT = "holdout"  # built in: the held-out share of the pairs, no file


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark and the text it was read from."""

    spec: BenchmarkSpec
    tree: Node


class Shelf:
    """The benchmark files that a recipe may name; both folders are listed once."""

    def __init__(self, recipe_folder: Path) -> None:
        folders = (package_data.folder("recipes") / "benchmarks", recipe_folder / "benchmarks")
        # Files beside the recipe come last, so that they win over packaged ones.
        self._paths = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
        self._known = {HOLDOUT, *self._paths}

    def find(self, name: str, asked_at: Span) -> Benchmark:
        """Read the benchmark `name`. Raise RequestError with every mistake."""
        if name in self._paths:
            return _read(name, self._paths[name])
        close = nearest(name, self._known)
        raise RequestError(
            Diagnostic(
                "unknown-benchmark",
                f"there is no benchmark `{shortened(name)}`",
                asked_at,
                f"did you mean `{close}`?" if close else "known: " + ", ".join(sorted(self._known)),
            )
        )


def unknown_metrics(benchmark: Benchmark, scorer: str) -> list[Diagnostic]:
    """Return a diagnostic for every metric that a scorer does not offer."""
    offered = plugin.load("scorers", scorer).metrics
    named = {("metric",): benchmark.spec.metric} | {
        ("metric_by_type", kind): name for kind, name in benchmark.spec.metric_by_type.items()
    }
    subject = Subject(places(benchmark.tree))
    result = []
    for place, name in named.items():
        if name not in offered:
            close = nearest(name, offered)
            result.append(
                Diagnostic(
                    "unknown-metric",
                    f"the scorer `{scorer}` has no metric `{name}`",
                    subject.value(*place),
                    f"did you mean `{close}`?"
                    if close
                    else "its metrics: " + ", ".join(sorted(offered)),
                )
            )
    return result


def span_in(name: str, recipe: Recipe, *path: str | int) -> Span | None:
    """Return the place of a value in a benchmark's file, or of the nearest section around it."""
    asked_at = named_at(name, recipe)
    spans = Spans(Subject(places(Shelf(Path(recipe.folder)).find(name, asked_at).tree)))
    found = (path[:length] for length in range(len(path), -1, -1) if path[:length] in spans)
    return next((spans[place] for place in found), None)


def named_at(name: str, recipe: Recipe) -> Span:
    """Return the line of a recipe that names a benchmark."""
    chosen = recipe.benchmarks
    for group, names in (("domain", chosen.domain), ("general", chosen.general)):
        if name in names:
            return recipe.spans["benchmarks", group, names.index(name)]
    raise AssertionError(f"the recipe names no benchmark `{name}`")


def _read(name: str, path: Path) -> Benchmark:
    tree = read_file(path, shown_path(path))
    frame = schema.load("benchmark")
    subject = Subject(places(tree), whole="a benchmark")
    instance = tree.plain()
    mistakes = [
        *schema.mistakes(instance, frame, subject),
        *params.mistakes_in_uses(instance, frame, frame, subject),
        *prompts.mistakes(instance, frame, subject),
    ]
    if mistakes:
        raise RequestError(*mistakes)
    filled = schema.filled(instance, frame, frame)
    return Benchmark(plugin.bind(BenchmarkSpec, {"name": name, **filled}), tree)
