"""`adapt init`: a recipe that runs, to begin a new domain from."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "init", help="write a recipe for a new domain", allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", help="of the recipe; it is written to NAME.yaml")
    parser.add_argument(
        "--from",
        dest="template",
        metavar="RECIPE",
        default="quickstart",
        help="the packaged recipe to begin from [quickstart]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Write NAME.yaml; refuse to overwrite."""
    path = _target(args.name)
    text = _named(_template(args.template), path.stem)
    _write_new(path, text)
    if args.json:
        print(json.dumps({"path": str(path), "from": args.template}))
    else:
        print(f"wrote {path}, a copy of the recipe `{args.template}`")
        print(f"next: edit it, `adapt validate {path}`, `adapt run {path}`")
    return 0


def _target(name: str) -> Path:
    """Return the file to write. Raise RequestError for a name that no recipe can have."""
    from engine.diagnostics import Diagnostic, RequestError

    path = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    if _NAME.fullmatch(path.stem):
        return path
    suggestion = re.sub(r"[^a-z0-9_-]+", "_", path.stem.lower()).strip("_-") or "my_domain"
    message = f"`{path.stem}` cannot be the name of a recipe"
    hint = f"small letters, digits, `_` and `-`: `adapt init {suggestion}`"
    raise RequestError(Diagnostic("wrong-name", message, hint=hint))


def _template(name: str) -> str:
    from engine import package_data
    from engine.diagnostics import Diagnostic, RequestError, nearest

    folder = package_data.folder("recipes")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in known:
        return (folder / f"{name}.yaml").read_text(encoding="utf-8")
    close = nearest(name, known)
    hint = f"did you mean `{close}`?" if close else "there are " + ", ".join(known)
    raise RequestError(Diagnostic("unknown-recipe", f"there is no recipe `{name}`", hint=hint))


def _named(text: str, name: str) -> str:
    """Return a recipe's text under another name; everything else stays as written."""
    from engine.recipe.source import read

    span = read(text, "").entries()["name"].node.span
    lines = text.splitlines(keepends=True)
    line = lines[span.line - 1]
    ending = line[len(line.rstrip("\n")) :]
    lines[span.line - 1] = line[: span.column - 1] + _quoted(name) + ending
    return "".join(lines)


def _quoted(name: str) -> str:
    """Quote a name that YAML would read as something else, for example a number."""
    from engine.recipe.source import read

    return name if read(name, "").value == name else f'"{name}"'


def _write_new(path: Path, text: str) -> None:
    from engine.diagnostics import Diagnostic, RequestError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        message = f"`{path}` is already there, and nothing was written"
        hint = "choose another name, or remove the file first"
        raise RequestError(Diagnostic("file-exists", message, hint=hint)) from None
    except OSError as error:
        reason = (error.strerror or "it cannot be written").lower()
        raise RequestError(Diagnostic("cannot-write", f"cannot write `{path}`: {reason}")) from None
