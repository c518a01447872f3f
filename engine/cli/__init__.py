"""The command `adapt`: one file per verb. Only the file of the chosen verb is imported."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import NoReturn

VERBS = {
    "init": "write a recipe for a new domain",
    "validate": "check recipes and print every mistake with its place",
    "plan": "show what a run would do, and why",
    "diff": "show what differs between two experiments, and what would run again",
    "lock": "write down what a recipe depends on, or check that it still holds",
    "rehearse": "run a recipe on stand-ins: small models, a few rows, any machine",
    "run": "run a recipe; finished stages are not run again",
    "status": "show how a run is going",
    "report": "print or open the report of a run",
    "show": "show a recipe resolved, or the rows of a run",
    "review": "grade a sample of the generated tasks on a local page",
    "store": "give back room, find damage, carry runs elsewhere",
    "explain": "explain the code of an error",
    "schema": "print the JSON schema of recipes",
}
PROGRAM = "adapt"
USAGE, ENGINE_BUG, INTERRUPTED = 2, 4, 130


def command() -> NoReturn:
    """Run the command line and end the process: what `adapt` and `python -m engine.cli` call.

    Nothing is left to tidy up after a verb but `run`, and Python's own tidying of a hundred modules
    takes a tenth of what a plan that was compiled before does. A run that has nothing to do, as the
    one before it, does not even begin.
    """
    try:
        from engine.cli import again  # not above: Ctrl-C at this early hour is no traceback either

        repeated = again.repeat(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        end(INTERRUPTED)
    if repeated is not None:
        end(repeated)
    # A plan of 10,000 nodes is all alive: looking through it for garbage is a fifth of its price.
    gc.set_threshold(200_000, 50, 50)
    code = main()
    if {"run", "rehearse"} & {*sys.argv}:
        sys.exit(code)
    end(code)


def end(code: int) -> NoReturn:
    """End the process without tidying up."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except SystemExit as stop:  # argparse: usage errors and --help
        return stop.code if isinstance(stop.code, int) else USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `adapt plan | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the top: nothing may reach the user as a traceback
        return _explain(error, "--json" in arguments)


def _dispatch(arguments: list[str]) -> int:
    verb = next((word for word in arguments if not word.startswith("-")), None)
    parser = _parser()
    if verb is None:
        parser.parse_args(arguments)
        parser.print_help()
        return USAGE
    if verb not in VERBS:
        return _unknown(verb)
    import importlib

    module = importlib.import_module(f"engine.cli.{verb}")
    subparsers = parser.add_subparsers(prog=PROGRAM, dest="verb", metavar="VERB", required=True)
    module.add_parser(subparsers)
    return int(module.run(parser.parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    import argparse

    from engine import __version__

    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} VERB ...",
        description="Adapt a general multimodal LLM to a domain from one YAML recipe.",
        epilog=f"verbs:\n{verbs}\n\n`{PROGRAM} VERB --help` tells more about one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def _unknown(verb: str) -> int:
    from engine.diagnostics import nearest

    close = nearest(verb, VERBS)
    print(f"error[unknown-verb]: `{PROGRAM}` has no verb `{verb}`", file=sys.stderr)
    what = f"`{PROGRAM} {close}` is close" if close else f"`{PROGRAM} --help` lists the verbs"
    print(f"  help: {what}", file=sys.stderr)
    return USAGE


def _explain(error: Exception, as_json: bool) -> int:
    """Print an error as its reader needs it; return the exit code."""
    from engine.cli import errors

    return errors.explain(error, as_json=as_json)
