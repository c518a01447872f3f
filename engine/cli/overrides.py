"""`--set a.b=c` and `--set-file a.b=FILE`: values of a recipe changed from the command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_PARSED = (".yaml", ".yml", ".json")
_BREAKS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029", "\ufeff": "\\ufeff"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add both flags; their values are kept in the order in which they are given."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="A.B=C",
        action="append",
        default=[],
        help="override one value of the recipe; may be repeated",
    )
    parser.add_argument(
        "--set-file",
        dest="overrides",
        metavar="A.B=FILE",
        action="append",
        type=from_file,
        help="override it by what a file holds: YAML or JSON as a value, anything else as a text",
    )


def from_file(word: str) -> str:
    """Return `a.b=FILE` as `a.b=VALUE`, so that a run remembers the value and needs no file.

    Raise RequestError when there is no such file, or no value in it.
    """
    path, equals, name = word.partition("=")
    if not equals or not name:
        raise _refused("override", f"`{word}` names no file", "write --set-file section.key=FILE")
    value = _parsed(Path(name)) if name.endswith(_PARSED) else _text(Path(name))
    written = json.dumps(value, ensure_ascii=False)
    for raw, escaped in _BREAKS.items():
        written = written.replace(raw, escaped)
    return f"{path}={written}"


def _parsed(path: Path) -> Any:
    from engine.recipe.source import read_file

    return read_file(path, str(path)).plain()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise _refused("file-not-found", f"cannot read `{path}`: {reason}", None) from None
    except UnicodeDecodeError:
        message = f"`{path}` is not UTF-8 text"
        raise _refused("not-utf8", message, "save the file as UTF-8") from None


def _refused(code: str, message: str, hint: str | None) -> Exception:
    from engine.diagnostics import Diagnostic, RequestError

    return RequestError(Diagnostic(code, message, hint=hint))
