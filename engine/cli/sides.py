"""The two sides of `adapt diff`: a recipe, a recipe at a git revision, a run, a saved plan.

A recipe of another revision is read with its parents, benchmarks and prompts as they were then;
data is where it is today, and the stages are those that are installed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import package_data
from engine.cli import locked, origins, planning
from engine.diagnostics import Diagnostic, RequestError, Span, nearest
from engine.plan import graph
from engine.plan.lock import Facts
from engine.plan.stage import Plan
from engine.recipe.model import Path_
from engine.runtime import runs
from engine.runtime.digests import DigestCache
from engine.runtime.store import Store

if TYPE_CHECKING:
    from engine.catalog import LocalPins
    from engine.plugin import Use
    from engine.recipe.model import Experiment

GIT = "git:"
REPORT = "report"
_TEXTS = (".yaml", ".yml", ".j2", ".lock.json")
_MAX_TEXT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its plan, its resolved recipe, and what can be said about where values stand."""

    name: str  # as a person names it
    kind: str  # recipe, git, run, plan
    plan: Plan
    raw: Mapping[str, Any] | None  # None for a run of a part that has no report
    compiled_with: Compiler | None = None  # None when the recipe's folder has gone
    spans: Mapping[Path_, Span] = field(default_factory=dict)

    def place(self, place: Path_ | None) -> str | None:
        """Return where a value was said, as `file:line`; None where nobody said it."""
        span = None if place is None else self.spans.get(place)
        if span is None or not span.line:
            return None
        return f"{origins.from_here(span.file)}:{span.line}"


@dataclass(frozen=True, slots=True)
class Compiler:
    """Compiles a recipe with the pins of one side."""

    pins: Any
    folder: Path
    facts: Facts | None = None  # of the lock beside the recipe

    def plan(self, experiment: Experiment) -> Plan:
        """Return the plan of an experiment."""
        from engine.pipeline import compile_plan

        experiment = locked.pinned(experiment, self.facts)
        return compile_plan(experiment, self.pins, cache(partial(_name, self.folder)))

    def what_if(self, raw: Mapping[str, Any]) -> Plan:
        """Return the plan of a resolved recipe. Raise RequestError when its parts do not fit."""
        from engine.recipe.load import experiment_of

        return self.plan(experiment_of(raw, self.folder))


@dataclass(frozen=True, slots=True)
class _PinsAtRevision:
    """Pins of today, but prompt templates of another revision of the engine's own repository."""

    today: LocalPins
    prompts: Path

    def model(self, name: str, revision: str | None) -> Any:
        return self.today.model(name, revision)

    def source(self, use: Use) -> Any:
        return self.today.source(use)

    def prompt(self, name: str) -> str:
        task, _, version = name.partition("@")
        path = self.prompts / task / f"v{version}.j2"
        return path.read_text("utf-8") if path.is_file() else self.today.prompt(name)


def side(name: str, store: Store, stack: ExitStack) -> Side:
    """Return what a word of the command line names. Raise RequestError when it is nothing."""
    if name.startswith(GIT):
        return _of_revision(name, store, stack)
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return _of_plan(path)
    if path.suffix in (".yaml", ".yml"):
        return _of_recipe(path, name, store)
    found = runs.find(store, name) if name != "newest" else runs.newest(store)
    if found is not None:
        return _of_run(found, store)
    shipped = package_data.folder("recipes") / f"{name}.yaml"
    if shipped.is_file():
        return _of_recipe(shipped, name, store)
    raise _nothing(name, store)


def head_of(name: str) -> str:
    """Return the committed form of a recipe, to compare the file with."""
    return f"{GIT}HEAD:{name}"


def _of_recipe(path: Path, name: str, store: Store) -> Side:
    from engine.catalog import LocalPins
    from engine.recipe.load import load_experiment

    digests = DigestCache(store.cache / "digests")
    experiment = load_experiment(path)
    pins = LocalPins(path.parent, digests)
    compiler = Compiler(pins, path.parent, locked.facts(path))
    return _side(name, "recipe", experiment, compiler)


def _side(name: str, kind: str, experiment: Experiment, compiler: Compiler) -> Side:
    plan = compiler.plan(experiment)
    return Side(name, kind, plan, experiment.raw, compiler, experiment.recipe.spans)


def _of_plan(path: Path) -> Side:
    try:
        plan = graph.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError):
        hint = "write one with `adapt plan RECIPE -o FILE.json`"
        raise RequestError(Diagnostic("no-plan", f"`{path}` is no plan", hint=hint)) from None
    return Side(str(path), "plan", plan, _raw_of(plan))


def _of_run(found: runs.Run, store: Store) -> Side:
    from engine.catalog import LocalPins

    plan = found.plan()
    folder = Path(found.facts()["recipe_folder"])
    digests = DigestCache(store.cache / "digests")
    pins = LocalPins(folder, digests)
    compiler = Compiler(pins, folder) if folder.is_dir() else None
    return Side(found.id, "run", plan, _raw_of(plan), compiler)


def _raw_of(plan: Plan) -> Mapping[str, Any] | None:
    """Return the resolved recipe that the report of a plan was given."""
    report = next((node for node in plan.nodes if node.stage == REPORT), None)
    raw: Mapping[str, Any] | None = report.params["raw"] if report is not None else None
    return raw


def _of_revision(name: str, store: Store, stack: ExitStack) -> Side:
    from engine.catalog import LocalPins
    from engine.recipe.load import load_experiment

    revision, _, file = name.removeprefix(GIT).partition(":")
    if not revision or not file:
        hint = "write git:REVISION:PATH, for example git:HEAD:recipes/mine.yaml"
        raise RequestError(Diagnostic("git", f"`{name}` names no file", hint=hint))
    path = Path(file).resolve()
    root = Path(_git(_existing(path.parent), "rev-parse", "--show-toplevel").strip())
    then = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adapt-diff-"))).resolve()
    _write_texts(root, revision, path.relative_to(root).as_posix(), then)
    try:
        experiment = load_experiment(then / path.relative_to(root))
    except RequestError as error:
        moved = (_moved(item, then, revision) for item in error.diagnostics)
        raise RequestError(*moved) from None
    digests = DigestCache(store.cache / "digests")
    pins: Any = LocalPins(path.parent, digests)
    if package_data.folder("prompt_templates").is_relative_to(root):
        pins = _PinsAtRevision(pins, then / "prompt_templates")
    held = locked.facts(then / path.relative_to(root))
    compiler = Compiler(pins, then / path.parent.relative_to(root), held)
    found = _side(f"{revision}:{file}", "git", experiment, compiler)
    spans = {p: replace(s, file=_shown(s.file, then, revision)) for p, s in found.spans.items()}
    return replace(found, spans=spans)


def _write_texts(root: Path, revision: str, wanted: str, target: Path) -> None:
    """Write the recipes, benchmarks and prompts of a revision into a folder."""
    listing = _git(root, "ls-tree", "-r", "-l", "-z", "--end-of-options", revision)
    names = []
    for entry in filter(None, listing.split("\0")):
        facts, _, name = entry.partition("\t")
        size = facts.split()[-1]
        if name.endswith(_TEXTS) and size.isdigit() and int(size) <= _MAX_TEXT_BYTES:
            names.append(name)
    if wanted not in names:
        close = nearest(wanted, names)
        hint = f"did you mean `{close}`?" if close else None
        message = f"revision `{revision}` has no file `{wanted}`"
        raise RequestError(Diagnostic("git", message, hint=hint))
    archive = _git_bytes(root, "archive", "--format=tar", revision, "--", *names)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(target, filter="data")


def _git(folder: Path, *words: str) -> str:
    return _git_bytes(folder, *words).decode("utf-8", "replace")


def _git_bytes(folder: Path, *words: str) -> bytes:
    """Return what git prints. Raise RequestError with its own words when it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True)  # noqa: S607
    except FileNotFoundError:
        raise RequestError(Diagnostic("git", "git is not installed")) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ")
        raise RequestError(Diagnostic("git", f"git says: {said}")) from None
    return done.stdout


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one around it that is there: a file may be gone today."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _moved(item: Diagnostic, then: Path, revision: str) -> Diagnostic:
    if item.span is None:
        return item
    return replace(item, span=replace(item.span, file=_shown(item.span.file, then, revision)))


def _shown(file: str, then: Path, revision: str) -> str:
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(then):
        return f"{revision}:{path.relative_to(then).as_posix()}"
    return file


def _name(folder: Path, file: str) -> str:
    return planning.portable_name(folder, file)


def _nothing(name: str, store: Store) -> RequestError:
    known = [run.id for run in runs.all_runs(store)]
    known += [path.stem for path in package_data.folder("recipes").glob("*.yaml")]
    close = nearest(name, known)
    hint = f"`{close}` is close" if close else "a recipe, git:REVISION:PATH, a run or a plan"
    message = f"there is no recipe, run or plan `{name}`"
    return RequestError(Diagnostic("nothing-to-compare", message, hint=hint))


def is_in_repository(path: Path) -> bool:
    """Tell whether git keeps the folder of a file."""
    try:
        _git(_existing(Path(os.path.abspath(path)).parent), "rev-parse", "--git-dir")  # noqa: PTH100
    except RequestError:
        return False
    return True
