"""What the command line prints when something went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from engine.diagnostics import (
    AdaptError,
    Diagnostic,
    ExitCode,
    GateError,
    RequestError,
    render,
)


def explain(error: Exception, *, as_json: bool) -> int:
    """Print an error; return the exit code. A bug leaves its traceback in a file."""
    if isinstance(error, RequestError | GateError):
        show(error.diagnostics, as_json=as_json)
        return int(error.exit_code)
    if isinstance(error, AdaptError):
        hint = getattr(error, "hint", None)
        show([Diagnostic("stage-failed", str(error), hint=hint)], as_json=as_json)
        return int(error.exit_code)
    path = _write_traceback(error)
    message = f"the engine has a bug: {type(error).__name__}: {error}"
    hint = f"the details are in {path}; please report them"
    show([Diagnostic("engine-bug", message, hint=hint)], as_json=as_json)
    return int(ExitCode.ENGINE_BUG)


def show(diagnostics: Iterable[Diagnostic], *, as_json: bool) -> None:
    """Print diagnostics: for people on stderr, for machines on stdout."""
    found = list(diagnostics)
    if as_json:
        print(json.dumps({"diagnostics": [item.to_json() for item in found]}, indent=1))
    else:
        print(render(found, read_text), file=sys.stderr)


def read_text(name: str) -> str | None:
    """Return the text of a file that a span names, or None when it cannot be read.

    A byte-order mark is no column, and bytes that are no UTF-8 are shown as such.
    """
    try:
        return Path(name).read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, ValueError):
        return None


def _write_traceback(error: Exception) -> Path:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="adapt-bug-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(" ".join(sys.argv) + "\n")
        traceback.print_exception(error, file=file)
        return Path(file.name)
