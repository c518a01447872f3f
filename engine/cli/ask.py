"""The questions of `adapt init --interactive`: plain lines on the terminal, or piped in."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.cli.init import Request
    from engine.cli.survey import Survey
    from engine.sources._look import Look


def request(args: argparse.Namespace) -> tuple[Request, tuple[Look, Survey] | None]:
    """Ask for what the command line leaves open. Raise RequestError when the input ends."""
    from engine.cli import init

    name = _ask("name of the domain", Path(args.name).stem)
    path = init.target(str(Path(args.name).with_name(name)) if name != args.name else name)
    init._refuse_existing(path)
    data = _ask("file or folder of image-caption pairs (blank: rendered pictures)", args.data or "")
    if not data:
        template = _ask("recipe to begin from", args.template or init.DEFAULT)
        return init.Request(path, template), None
    found = _look(Path(data))
    template = _ask("recipe to begin from", args.template or init.DEFAULT_FOR_DATA)
    benchmark = _ask("benchmark of the domain (holdout: pairs kept from training)", "holdout")
    base = _ask("base MLLM (blank: as in that recipe)", "")
    caption = found[0].settings.get("columns", {}).get("caption")
    return init.Request(path, template, Path(data), caption, benchmark, base or None), found


def _look(data: Path) -> tuple[Look, Survey]:
    """Look at the data; ask which column is the caption if several may be."""
    from engine.cli import init, survey

    found = init.look_at(data)
    choices = found[0].caption_choices
    if choices:
        chosen = _ask(f"caption column ({', '.join(choices)})", choices[0])
        found = init.look_at(data, chosen)
    print("\n".join(survey.lines(*found)), file=sys.stderr)
    return found


def _ask(question: str, default: str) -> str:
    """Return an answer, or the default for a blank one."""
    from engine.diagnostics import Diagnostic, RequestError

    # Questions go where errors go, so that `--json` leaves standard output to the machine.
    shown = f"{question} [{default}]: " if default else f"{question}: "
    print(shown, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        print(file=sys.stderr)
        message = f"the input ended at the question `{question}`, and nothing was written"
        hint = "answer on a terminal, or leave out --interactive"
        raise RequestError(Diagnostic("no-answer", message, hint=hint))
    return line.strip() or default
