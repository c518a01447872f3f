"""`adapt init`: a recipe that runs, to begin a new domain from.

Without `--data` it is a copy of a recipe. With it, the data is looked at, and the recipe says what
was found, proposes source, filters and a hold-out, and asks what only a person can decide.

The first line names the JSON schema for editors, a file `adapt.schema.json` beside the recipe that
is written along with it. Both belong into version control: a path to the installed package would be
wrong on every other machine, a URL needs a network and knows nothing of this version's plug-ins,
and a path that begins at the recipe stays true after `git clone`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.cli.survey import Survey
    from engine.sources._look import Look

SCHEMA_FILE = "adapt.schema.json"
DEFAULT, DEFAULT_FOR_DATA = "quickstart", "stamps"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_OUR_SCHEMA = '"$id": "urn:adapt:schema:bundle"'


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "init",
        help="write a recipe for a new domain",
        description="Write a recipe for a new domain, and the schema that editors check it with.",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="of the recipe; it is written to NAME.yaml")
    parser.add_argument(
        "--from",
        dest="template",
        metavar="RECIPE",
        help="the recipe to begin from: a packaged one, or a path "
        f"[{DEFAULT}; {DEFAULT_FOR_DATA} with --data]",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="look at these pairs (a folder of pictures, CSV, JSON, Parquet, WebDataset) and "
        "propose source, filters and a hold-out",
    )
    parser.add_argument(
        "--interactive", action="store_true", help="ask on the terminal; a blank answer is [this]"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be written."""

    path: Path
    template: str
    data: Path | None = None
    caption: str | None = None
    benchmark: str = "holdout"
    base_model: str | None = None


def run(args: argparse.Namespace) -> int:
    """Write NAME.yaml; refuse to overwrite."""
    found: tuple[Look, Survey] | None
    if args.interactive:
        from engine.cli import ask

        request, found = ask.request(args)
    else:
        template = args.template or (DEFAULT_FOR_DATA if args.data else DEFAULT)
        request = Request(target(args.name), template, Path(args.data) if args.data else None)
        _refuse_existing(request.path)
        found = None if request.data is None else look_at(request.data)
    text = _text(request, found)
    schema = _schema_for(request.path)
    _write_new(request.path, f"# yaml-language-server: $schema={schema}\n{text}")
    if schema == SCHEMA_FILE:
        _write_schema(request.path.parent / SCHEMA_FILE)
    _print(args, request, found, schema)
    return 0


def look_at(data: Path, caption: str | None = None) -> tuple[Look, Survey]:
    """Return what is at a path, and the facts of a sample. Raise RequestError."""
    from engine.cli.survey import SAMPLE_ROWS, survey
    from engine.sources._look import look

    found = look(data.absolute(), SAMPLE_ROWS, caption)
    return found, survey(found)


def target(name: str) -> Path:
    """Return the file to write. Raise RequestError for a name that no recipe can have."""
    from engine.diagnostics import Diagnostic, RequestError

    path = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    if _NAME.fullmatch(path.stem):
        return path
    suggestion = re.sub(r"[^a-z0-9_-]+", "_", path.stem.lower()).strip("_-") or "my_domain"
    message = f"`{path.stem}` cannot be the name of a recipe"
    hint = f"small letters, digits, `_` and `-`: `adapt init {suggestion}`"
    raise RequestError(Diagnostic("wrong-name", message, hint=hint))


def _text(request: Request, found: tuple[Look, Survey] | None) -> str:
    template = _template(request.template, request.path.parent)
    if found is None:
        text = _named(template, request.path.stem)
        return re.sub(r"\A# yaml-language-server:.*\n", "", text)
    from engine.cli.scaffold import Wishes, scaffold

    words = ["adapt", "init", request.path.stem, "--data", str(request.data)]
    words += ["--from", request.template] if request.template != DEFAULT_FOR_DATA else []
    command = shlex.join(words)
    folder = request.path.parent.absolute()
    wishes = Wishes(request.path.stem, folder, command, request.benchmark, request.base_model)
    return scaffold(template, *found, wishes)


def _template(name: str, folder: Path) -> str:
    """Return the text of a packaged recipe, or of one at a path, its own paths made to fit."""
    from engine import package_data
    from engine.diagnostics import Diagnostic, RequestError, nearest

    packaged = package_data.folder("recipes")
    known = sorted(path.stem for path in packaged.glob("*.yaml"))
    if name in known:
        return (packaged / f"{name}.yaml").read_text(encoding="utf-8")
    if name.endswith((".yaml", ".yml")) or "/" in name:
        from engine.cli.moved import moved
        from engine.recipe.source import read_file

        read_file(Path(name), name)  # says what is wrong with the file, if anything is
        text = Path(name).read_text(encoding="utf-8-sig")
        return moved(text, Path(name).parent, folder)
    close = nearest(name, known)
    hint = f"did you mean `{close}`?" if close else "there are " + ", ".join(known)
    raise RequestError(Diagnostic("unknown-recipe", f"there is no recipe `{name}`", hint=hint))


def _named(text: str, name: str) -> str:
    """Return a recipe's text under another name; everything else stays as written."""
    from engine.cli.scaffold import scalar
    from engine.recipe.source import read

    entry = read(text, "").entries().get("name")
    if entry is None:
        return f"name: {scalar(name)}\n{text}"
    span = entry.node.span
    lines = text.splitlines(keepends=True)
    line = lines[span.line - 1]
    ending = line[len(line.rstrip("\n")) :]
    lines[span.line - 1] = line[: span.column - 1] + scalar(name) + ending
    return "".join(lines)


def _schema_for(recipe: Path) -> str:
    """Return the path of the schema from the recipe: one that the repository has, or a new one.

    Raise RequestError if its name is taken by another file.
    """
    own = recipe.parent.absolute()
    for folder in _up_to_repository(own):
        for name in (SCHEMA_FILE, "schemas/bundle.schema.json"):
            if folder != own and _is_our_schema(folder / name):
                return Path(os.path.relpath(folder / name, own)).as_posix()
    if (own / SCHEMA_FILE).exists() and not _is_our_schema(own / SCHEMA_FILE):
        _refuse_existing(recipe.parent / SCHEMA_FILE)
    return SCHEMA_FILE


def _write_schema(path: Path) -> None:
    """Write the schema of this version, in place of that of an older one."""
    from engine import package_data

    bundle = package_data.folder("schemas") / "bundle.schema.json"
    _write(path, bundle.read_text(encoding="utf-8"), "w")


def _up_to_repository(folder: Path) -> list[Path]:
    """Return the folders from this one up to the root of its repository; this one if none."""
    above = [folder, *folder.parents]
    root = next((place for place in above if (place / ".git").exists()), folder)
    return above[: above.index(root) + 1]


def _is_our_schema(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return _OUR_SCHEMA in file.read(1000)
    except OSError:
        return False


def _refuse_existing(path: Path) -> None:
    """Raise RequestError before any work if the file is there."""
    from engine.diagnostics import Diagnostic, RequestError

    if path.exists():
        message = f"`{path}` is already there, and nothing was written"
        hint = "choose another name, or remove the file first"
        raise RequestError(Diagnostic("file-exists", message, hint=hint))


def _write_new(path: Path, text: str) -> None:
    try:
        _write(path, text, "x")
    except FileExistsError:
        _refuse_existing(path)


def _write(path: Path, text: str, mode: str) -> None:
    from engine.diagnostics import Diagnostic, RequestError

    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise
    except OSError as error:
        reason = (error.strerror or "it cannot be written").lower()
        raise RequestError(Diagnostic("cannot-write", f"cannot write `{path}`: {reason}")) from None


def _print(
    args: argparse.Namespace, request: Request, found: tuple[Look, Survey] | None, schema: str
) -> None:
    from engine.cli import survey

    path = request.path
    if args.json:
        said: dict[str, Any] = {"path": str(path), "from": request.template, "schema": schema}
        if found is not None:
            from engine.cli.scaffold import settings_for

            settings = {"use": found[0].use, **settings_for(found[0], path.parent.absolute())}
            said |= {"source": settings, "found": survey.to_json(*found)}
        print(json.dumps(said))
        return
    if found is None:
        print(f"wrote {path}, a copy of the recipe `{request.template}`")
    else:
        if not args.interactive:  # there they were shown before the last questions
            print("\n".join(survey.lines(*found)))
        print(f"wrote {path}; `grep -n DECIDE {path}` lists what you must decide")
    print(f"next: edit it, `adapt validate {path}`, `adapt run {path}`")
