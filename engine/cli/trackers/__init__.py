"""Experiment trackers: one file each, opt-in, fed from the event log by a process of its own.

`adapt run` starts a process per tracker and forgets it: a tracker that hangs, fails or is slow can
neither hold up nor hurt a run. Nothing queues up either: who is late reads the log later, and finds
of a node's progress only the last word.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.diagnostics import Diagnostic

PACKAGES = {  # tracker -> package that must be importable
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
NAMES = tuple(PACKAGES)
MAX_LINE = 300
PATIENCE_S = 2.0  # for the last words of trackers, when a run ends


class Tracker(Protocol):
    """A place that keeps numbers of many runs."""

    def log(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Keep numbers; steps grow within a group."""

    def close(self, *, has_failed: bool) -> None:
        """Bring everything to its place."""


@dataclass(frozen=True, slots=True)
class About:
    """What a tracker is told of a run when it begins. Holds no secret and no path of the user."""

    run: str
    recipe: str
    facts: Mapping[str, Any]  # engine, overrides, device and the like; the recipe, resolved
    folder: Path  # of this run and tracker alone
    is_offline: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The process of a tracker."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path

    def last_line(self) -> str:
        """Return the last thing that it said."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace").strip()
        return text.rpartition("\n")[2][:MAX_LINE] or f"exit code {self.process.returncode}"


def missing(names: Iterable[str]) -> list[str]:
    """Return the trackers whose package is not installed; imports none of them."""
    return [name for name in names if importlib.util.find_spec(PACKAGES[name]) is None]


def begin(
    run_folder: Path, store: Path, names: Sequence[str], interpreter: Sequence[str] = ()
) -> list[Started]:
    """Start a process per tracker that is installed; warn of the others."""
    away = missing(names)
    for name in away:
        package = PACKAGES[name]
        message = f"tracker `{name}` is left out: package `{package}` is not installed"
        _warn(Diagnostic("tracker-missing", message, hint=f"pip install {package}"))
    return _start(run_folder, store, [name for name in names if name not in away], interpreter)


def end(started: Sequence[Started]) -> None:
    """Warn of the trackers that ended badly; the others are left to themselves."""
    for one in _failures(started):
        message = f"tracker `{one.name}` ended badly: {one.last_line()}; the run is whole"
        _warn(Diagnostic("tracker-failed", message, hint=f"its words are in {one.log_path}"))


def _warn(found: Diagnostic) -> None:
    print(f"warning[{found.code}]: {found.message}\n  help: {found.hint}", file=sys.stderr)


def _start(
    run_folder: Path, store: Path, names: Sequence[str], interpreter: Sequence[str]
) -> list[Started]:
    found = []
    for name in names:
        log_path = run_folder / "trackers" / f"{name}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *interpreter, "-m", "engine.cli.tracking"]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, name, str(run_folder), str(store)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupted run still gets its last words in
            )
        found.append(Started(name, process, log_path))
    return found


def _failures(started: Iterable[Started]) -> list[Started]:
    """Return the trackers that ended badly; a moment is given to those that are just at it."""
    found = list(started)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and any(one.process.poll() is None for one in found):
        time.sleep(0.05)
    ended = [one for one in found if one.process.poll() not in (None, 0)]
    for one in found:
        if one.process.returncode is None:
            one.process.returncode = 0  # nobody waits for it any more
    return ended
