"""`adapt explain CODE`: what the code of an error means, with a wrong and a right example."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "pages"


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain", help="explain the code of an error", allow_abbrev=False
    )
    parser.add_argument("code", metavar="CODE", nargs="?", help="for example unknown-key [all]")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the page of a code, or the list of codes."""
    if args.code is None:
        found = {code: summary(code) for code in codes()}
        print(json.dumps(found, indent=1) if args.json else _listed(found))
        return 0
    code = _known(args.code)
    print(json.dumps({"code": code, "page": page(code)}) if args.json else page(code))
    return 0


def codes() -> list[str]:
    """Return every code that has a page."""
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def page(code: str) -> str:
    """Return the page of a code: Markdown, with one wrong and one right example."""
    return (FOLDER / f"{code}.md").read_text(encoding="utf-8").rstrip("\n")


def summary(code: str) -> str:
    """Return the first sentence of a page."""
    paragraph = page(code).split("\n\n")[1].replace("\n", " ")
    head, stop, _ = paragraph.partition(". ")
    return head + stop.rstrip()


def _known(name: str) -> str:
    """Return a code that has a page; `error[code]` is read as well. Raise RequestError."""
    from engine.diagnostics import Diagnostic, RequestError, nearest

    code = name.removeprefix("error[").rstrip("]:")
    if code in codes():
        return code
    close = nearest(code, codes())
    hint = f"did you mean `{close}`?" if close else "`adapt explain` lists the codes"
    raise RequestError(Diagnostic("unknown-code", f"there is no code `{code}`", hint=hint))


def _listed(found: dict[str, str]) -> str:
    width = max(map(len, found))
    return "\n".join(f"{code:<{width}}  {said}" for code, said in found.items())
