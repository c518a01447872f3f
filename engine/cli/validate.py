"""`adapt validate`: every mistake of a recipe at once, each at its line and column."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.diagnostics import Diagnostic
    from engine.recipe.model import Experiment

FORMATS = ("text", "json", "github", "sarif")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "validate",
        help="check recipes and print every mistake with its place",
        allow_abbrev=False,
    )
    parser.add_argument("recipes", metavar="RECIPE", nargs="+", help="path of a recipe")
    overrides.add_flags(parser)
    parser.add_argument(
        "--fix",
        action="store_true",
        help="first repair what is certain and tidy white space; comments stay as they are",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the output [text]")
    parser.add_argument("--json", action="store_true", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    """Check recipes; return 1 if anything is wrong with one of them."""
    from engine.diagnostics import ExitCode, RequestError
    from engine.forecast import fit
    from engine.models._known import finder_of
    from engine.recipe.load import load_experiment

    form = "json" if args.json else args.format
    mistakes: list[Diagnostic] = []
    valid: list[tuple[str, Experiment]] = []
    for name in args.recipes:
        path = Path(name)
        if args.fix:
            _mend(path, name)
        try:
            experiment = load_experiment(path, args.overrides)
            fit.check(experiment, finder_of(path.parent, os.environ))
            valid.append((name, experiment))
        except RequestError as error:
            mistakes += error.diagnostics
    found = list(dict.fromkeys(mistakes))  # a parent of two recipes is told once
    if form == "text":
        _print_text(found, valid)
    else:
        print(_printed(found, valid, form))
    return int(ExitCode.REQUEST_WRONG if found else ExitCode.DONE)


def _mend(path: Path, name: str) -> None:
    """Write back the repaired text, and say each change. A file that is not there stays so."""
    from engine.recipe.layout import tidied
    from engine.recipe.mending import mended

    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return  # loading says what is wrong with it
    tidy = tidied(text)
    if tidy != text:
        print(f"{name}: tidied", file=sys.stderr)
    repaired, fixes = mended(path, tidy)
    for fix in fixes:
        print(f"{fix.span}: `{fix.old}` is now `{fix.new}`", file=sys.stderr)
    if repaired != text:
        path.write_bytes(repaired.encode("utf-8"))


def _print_text(mistakes: Sequence[Diagnostic], valid: Sequence[tuple[str, Experiment]]) -> None:
    from engine.cli import errors

    for name, experiment in valid:
        arms = f", arms {', '.join(experiment.arms)}" if len(experiment.arms) > 1 else ""
        print(f"{name}: valid (benchmarks {', '.join(_benchmarks(experiment)) or 'none'}{arms})")
    if mistakes:
        errors.show(mistakes, as_json=False)


def _printed(
    mistakes: Sequence[Diagnostic], valid: Sequence[tuple[str, Experiment]], form: str
) -> str:
    from engine.cli import formats

    if form == "github":
        return formats.github(mistakes)
    if form == "sarif":
        return formats.sarif(mistakes)
    found: dict[str, Any] = {"diagnostics": [item.to_json() for item in mistakes]}
    if len(valid) == 1 and not mistakes:
        found |= _facts(valid[0][1])
    elif valid:
        found["valid"] = [{"file": name, **_facts(experiment)} for name, experiment in valid]
    return json.dumps(found, indent=1)


def _facts(experiment: Experiment) -> dict[str, Any]:
    return {
        "recipe": experiment.recipe.name,
        "arms": list(experiment.arms),
        "benchmarks": _benchmarks(experiment),
    }


def _benchmarks(experiment: Experiment) -> list[str]:
    chosen = experiment.recipe.benchmarks
    return [*chosen.domain, *chosen.general]
