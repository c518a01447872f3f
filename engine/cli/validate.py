"""`adapt validate`: every mistake of a recipe at once, each at its line and column."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.diagnostics import Diagnostic
    from engine.recipe.model import Experiment

FORMATS = ("text", "json", "github", "sarif")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "validate",
        help="check a recipe and print every mistake with its place",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="path of a recipe")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="A.B=C",
        action="append",
        default=[],
        help="override one value of the recipe; may be repeated",
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="tidy the file's white space first; values and comments stay as they are",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the output [text]")
    parser.add_argument("--json", action="store_true", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    """Check a recipe; return 1 if anything is wrong with it."""
    from engine.diagnostics import ExitCode, RequestError
    from engine.forecast import fit
    from engine.models._known import finder_of
    from engine.recipe.load import load_experiment

    form = "json" if args.json else args.format
    path = Path(args.recipe)
    if args.fix and _tidy(path):
        print(f"{args.recipe}: tidied", file=sys.stderr)
    try:
        experiment = load_experiment(path, args.overrides)
        fit.check(experiment, finder_of(path.parent, os.environ))
    except RequestError as error:
        _print_mistakes(error.diagnostics, form)
        return int(ExitCode.REQUEST_WRONG)
    _print_success(experiment, args.recipe, form)
    return int(ExitCode.DONE)


def _tidy(path: Path) -> bool:
    """Write the tidied text back; tell whether it differs. A file that is not there stays so."""
    from engine.recipe.layout import tidied

    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return False  # loading says what is wrong with it
    fixed = tidied(text)
    if fixed != text:
        path.write_bytes(fixed.encode("utf-8"))
    return fixed != text


def _print_mistakes(diagnostics: Iterable[Diagnostic], form: str) -> None:
    from engine.cli import errors, formats

    if form == "github":
        print(formats.github(diagnostics))
    elif form == "sarif":
        print(formats.sarif(diagnostics))
    else:
        errors.show(diagnostics, as_json=form == "json")


def _print_success(experiment: Experiment, shown_as: str, form: str) -> None:
    from engine.cli import formats

    recipe = experiment.recipe
    names = [*recipe.benchmarks.domain, *recipe.benchmarks.general]
    if form == "json":
        found = {"recipe": recipe.name, "arms": list(experiment.arms), "benchmarks": names}
        print(json.dumps({"diagnostics": [], **found}, indent=1))
    elif form == "sarif":
        print(formats.sarif(()))
    elif form == "text":
        arms = f", arms {', '.join(experiment.arms)}" if len(experiment.arms) > 1 else ""
        print(f"{shown_as}: valid (benchmarks {', '.join(names) or 'none'}{arms})")
