"""`adapt lock`: write down what a recipe depends on, or check that it still holds."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import hub
from engine.cli import frozen, locked, overrides, planning, settings
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, GateError, RequestError, Span, nearest
from engine.hub import HubError, Snapshot
from engine.plan import lock
from engine.plan.lock import Drift, Facts, Reference
from engine.recipe.model import Experiment, Recipe
from engine.runtime import opening
from engine.runtime.digests import DigestCache
from engine.runtime.store import Store

# Files of a model that are read when it is loaded; a picture in its page moves no result.
_LOADED = (".json", ".safetensors", ".jinja", ".txt", ".model", ".bin", ".py", ".tiktoken")

Asked = Mapping[Reference, Span | None]
Answers = dict[Reference, Snapshot]


@dataclass(frozen=True, slots=True)
class Request:
    """What a hub is asked for."""

    asked: Asked  # what the recipe takes from a hub, as it is written
    held: Facts | None  # the lock that is there
    is_offline: bool


@dataclass(frozen=True, slots=True)
class Locking:
    """A recipe as its lock sees it."""

    planned: Planned  # with the locked commits
    request: Request
    now: Facts  # what can be known offline


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "lock",
        help="write down what a recipe depends on, or check that it still holds",
        description="Writes RECIPE.lock.json beside the recipe: commits and digests of models and "
        "datasets, digests of prompts and local files, versions. Commit it: planning then uses "
        "these commits, and `--frozen` refuses whatever moved.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="path of a recipe")
    overrides.add_flags(parser)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 5 on drift")
    parser.add_argument("--json", action="store_true", help="print JSON")
    settings.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Lock a recipe, or check its lock."""
    machine = settings.resolve(args, os.environ)
    found = _locking(
        args, opening.open_store(machine.store, machine.remote), is_offline=machine.is_offline
    )
    try:
        return _check(found, args.json) if args.check else _write(found, args.json)
    finally:
        if machine.store.is_dir():  # a model of many gigabytes is read once
            with suppress(OSError):
                found.planned.digests.save()


def _locking(args: argparse.Namespace, store: Store, *, is_offline: bool) -> Locking:
    from engine.recipe.load import load_experiment

    recipe = Path(args.recipe)
    held = _held(recipe, is_check=args.check)
    experiment = load_experiment(recipe, args.overrides)
    asked = _asked(experiment)
    is_offline = is_offline or (bool(asked) and hub.is_offline())
    request = Request(asked, held, is_offline)
    digests = DigestCache(store.cache / "digests")
    try:
        plan = planning.compile_experiment(recipe, locked.pinned(experiment, held), digests)
    except RequestError as error:  # what is wrong here and what is wrong at the hub, at once
        mistakes = [] if args.check else _ask(request)[1]
        raise RequestError(*error.diagnostics, *mistakes) from None
    planned = Planned(plan, recipe, tuple(args.overrides), digests)
    return Locking(planned, request, frozen.now(plan, args, os.environ))


def _held(recipe: Path, *, is_check: bool) -> Facts | None:
    """Return the lock that is there; a broken one is as good as none where it is written anew."""
    try:
        return locked.facts(recipe)
    except RequestError:
        if is_check:
            raise
        return None


def _asked(experiment: Experiment) -> Asked:
    """Return what a recipe and its arms take from a hub, with the place of the name.

    An open revision comes before a commit of the same name: the plain fact is the open one's.
    """
    found: dict[Reference, Span | None] = {}
    for recipe in experiment.arms.values():
        for reference, path in lock.asked(recipe):
            found.setdefault(reference, recipe.span(*_written(recipe, path)))
    return dict(sorted(found.items(), key=lambda item: (item[0].subject, item[0].is_exact)))


def _written(recipe: Recipe, path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the path that a recipe has for a value: a benchmark is chosen by its name."""
    if path[0] != "benchmark_specs":
        return path
    chosen = recipe.benchmarks
    for group, names in (("domain", chosen.domain), ("general", chosen.general)):
        if path[1] in names:
            return ("benchmarks", group, names.index(path[1]))
    return ("benchmarks",)


def _write(found: Locking, as_json: bool) -> int:
    answers, mistakes = _ask(found.request)
    if mistakes:
        raise RequestError(*mistakes)
    new = dict(found.now)
    for reference, answer in answers.items():
        new |= _facts(reference, answer, new)
    if found.request.is_offline and found.request.held:
        new |= {name: found.request.held[name] for name in _kept(found.request)}
    path = locked.path_of(found.planned.recipe)
    changes = _changes(found.request.held or {}, new)
    if found.request.held is None or changes:
        locked.write(path, new)
    if as_json:
        changed = [asdict(change) for change in changes]
        print(json.dumps({"lock": str(path), "facts": new, "changes": changed}, indent=1))
    else:
        print(_said(path, new, changes, is_new=found.request.held is None))
    return 0


def _ask(request: Request) -> tuple[Answers, list[Diagnostic]]:
    """Ask the hub for everything at once; return what it says, and what it does not."""
    if request.is_offline:
        unknown = [
            ref for ref in request.asked if request.held is None or ref.fact not in request.held
        ]
        return {}, [_diagnostic(request, r, hub.offline(r.kind, r.name)) for r in unknown]
    answers: Answers = {}
    mistakes: list[Diagnostic] = []
    for reference, answer in hub.snapshots({ref: ref.revision for ref in request.asked}).items():
        if isinstance(answer, HubError):
            mistakes.append(_diagnostic(request, reference, answer))
        else:
            answers[reference] = answer
    return answers, mistakes


def _diagnostic(request: Request, reference: Reference, error: HubError) -> Diagnostic:
    """Return an error of the hub at the recipe line that named it."""
    hint, span = error.hint, request.asked.get(reference)
    if error.code == hub.NOT_FOUND:
        others = [other.name for other in request.asked if other.kind == reference.kind]
        others += lock.names(request.held or {}, reference.kind)
        close = nearest(reference.name, (name for name in others if name != reference.name))
        hint = f"did you mean `{close}`?" if close else hint
    return Diagnostic(error.code, str(error), span, hint)


def _facts(reference: Reference, answer: Snapshot, known: Facts) -> dict[str, str | None]:
    """Return the facts of one answer; a commit asked for beside an open revision has a name too."""
    subject = reference.subject
    if known.get(reference.fact, answer.commit) != answer.commit:
        subject = f"{subject}@{answer.commit}"
    found: dict[str, str | None] = {f"{subject} revision": answer.commit}
    if reference.kind == "model":
        found |= {f"{subject} file {name}": answer.files[name] for name in _loaded(answer)}
    return found


def _loaded(answer: Snapshot) -> list[str]:
    """Return the files that a model is loaded from; pickled weights only without others."""
    names = [name for name in answer.files if name.endswith(_LOADED) and "/" not in name]
    if any(name.endswith(".safetensors") for name in names):
        names = [name for name in names if not name.endswith(".bin")]
    return names


def _kept(request: Request) -> list[str]:
    """Return the facts of a lock that only a hub knows, of what the recipe still takes from it."""
    assert request.held is not None
    subjects = {ref.subject for ref in request.asked}
    subjects |= {f"{ref.subject}@{ref.revision}" for ref in request.asked if ref.is_exact}
    heads = tuple(f"{subject} {word}" for subject in subjects for word in ("revision", "file "))
    return [name for name in request.held if name.startswith(heads)]


def _changes(old: Facts, new: Facts) -> list[Drift]:
    names = sorted(old.keys() | new.keys())
    moved = (n for n in names if old.get(n) != new.get(n) or (n in old) != (n in new))
    return [Drift(name, old.get(name), new.get(name)) for name in moved]


def _said(path: Path, new: Facts, changes: list[Drift], *, is_new: bool) -> str:
    if is_new:
        commits = sum(map(lock.is_commit_of_hub, new))
        return f"wrote {path}: {len(new)} facts, {commits} commits of a hub"
    if not changes:
        return f"{path} holds: {len(new)} facts, none moved"
    lines = [f"wrote {path}: {len(changes)} of {len(new)} facts moved"]
    return "\n".join([*lines, *(f"  {change}" for change in changes)])


def _check(found: Locking, as_json: bool) -> int:
    held = frozen.required(found.planned.recipe)
    problems = frozen.drifts(found.planned, held, found.now)
    problems += frozen.downloaded_drifts(found.planned, held, os.environ)
    news: list[str] = []
    if not found.request.is_offline:
        more, news = _moved(found, held)
        problems += more
    if problems and all(item.code == hub.UNAVAILABLE for item in problems):
        raise RequestError(*problems)  # nothing moved as far as anyone knows
    if problems:
        raise GateError(*problems)
    if as_json:
        path = str(locked.path_of(found.planned.recipe))
        print(json.dumps({"lock": path, "drifts": [], "news": news}, indent=1))
    else:
        lines = [f"{locked.path_of(found.planned.recipe)} holds: {len(held)} facts, none moved"]
        print("\n".join([*lines, *(f"  {line}" for line in news)]))
    return 0


def _moved(found: Locking, held: Facts) -> tuple[list[Diagnostic], list[str]]:
    """Ask the hub whether the locked commits are there, and where their branches are now."""
    commits = {ref: held[ref.fact] for ref in found.request.asked if held.get(ref.fact)}
    problems = list(_lost(found, held, commits))
    news, recipe = [], found.planned.recipe
    branches = {ref: ref.revision for ref in commits if not ref.is_exact}
    for reference, answer in hub.snapshots(branches).items():
        drift = _drift(reference, held, answer)
        if isinstance(answer, HubError):
            problems.append(_diagnostic(found.request, reference, answer))
        elif drift is not None and reference.revision is None:
            news.append(f"newer on the hub, not used: {drift}")
        elif drift is not None:
            hint = f"the recipe names this branch; `adapt lock {recipe}` follows it"
            problems.append(frozen.drift_diagnostic(recipe, drift, hint))
    return list(dict.fromkeys(problems)), news


def _lost(
    found: Locking, held: Facts, commits: Mapping[Reference, str | None]
) -> Iterator[Diagnostic]:
    """Yield the locked commits that the hub no longer has, or has with other files."""
    recipe = found.planned.recipe
    hint = "the hub says something else of the same commit: do not trust either"
    for reference, answer in hub.snapshots(commits).items():
        if isinstance(answer, HubError):
            yield _diagnostic(found.request, reference, answer)
            continue
        for fact, now in _facts(reference, answer, {}).items():
            if held.get(fact) != now:
                yield frozen.drift_diagnostic(recipe, Drift(fact, held.get(fact), now), hint)


def _drift(reference: Reference, held: Facts, answer: Snapshot | HubError) -> Drift | None:
    """Return how a branch moved away from its locked commit."""
    old = held[reference.fact]
    if isinstance(answer, HubError) or answer.commit == old:
        return None
    return Drift(reference.fact, old, answer.commit)
