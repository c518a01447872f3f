"""Keeps what a run with nothing to do said, for `again.py` to say it again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from engine.cli import again, compiled, settings
from engine.runtime.store import MANIFEST

if TYPE_CHECKING:
    from engine.cli.planning import Planned
    from engine.plan.stage import Plan
    from engine.runtime.runs import Run
    from engine.runtime.store import Store

MAX_ENTRIES = 50
MAX_NODES = 500
# Whatever else was asked for may depend on more than an entry knows of.
_FLAGS = (
    "--store",
    "--set",
    "--only",
    "--threads",
    "--device",
    "--offline",
    "--online",
    "--json",
    "--quiet",
)
_MACHINE = ("/sys/fs/cgroup/cpu.max",)
_GPUS = "/proc/driver/nvidia/gpus"
# Machine settings that change nothing of what a run with nothing to do does.
_SETTINGS = {
    "store", "remote", "ray_address", "threads", "retries", "retry_pause_s", "device", "num_gpus",
    "is_offline", "pythons",
}  # fmt: skip
_NOTHING = {"run_started", "node_cached", "run_finished"}


@dataclass(frozen=True, slots=True)
class Told:
    """What a command said."""

    words: tuple[str, ...]
    stdout: Copy
    stderr: Copy


class Copy:
    """A stream that keeps what is written to it, and lets it pass."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(self._parts)

    def write(self, text: str) -> int:
        """Write to the stream itself."""
        self._parts.append(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def listening(words: Sequence[str]) -> Iterator[Told | None]:
    """Note what a command says; yields None if it asks for what an entry does not know of."""
    if not _is_known(words):
        yield None
        return
    with _copied(words, sys.stdout, sys.stderr) as told:
        yield told


@contextmanager
def _copied(words: Sequence[str], stdout: TextIO, stderr: TextIO) -> Iterator[Told]:
    told = Told(tuple(words), Copy(stdout), Copy(stderr))
    with redirect_stdout(cast(TextIO, told.stdout)), redirect_stderr(cast(TextIO, told.stderr)):
        yield told


def _is_known(words: Sequence[str]) -> bool:
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    is_saved_plan = any(word.endswith(".json") for word in words)
    return list(words[:1]) == ["run"] and not is_saved_plan and flags <= set(_FLAGS)


def keep(told: Told, planned: Planned, plan: Plan, store: Store, run: Run) -> None:
    """Write the entry of a run that found every stage cached; without one nothing is lost."""
    with suppress(OSError, ValueError, KeyError):
        entry = _entry(told, planned, plan, store, run)
        if entry is not None:
            _write(Path(again.entry_path(entry["asked"])), entry)


def foretell(
    words: Sequence[str],
    planned: Planned,
    plan: Plan,
    store: Store,
    run: Run,
    say: Callable[[Run], int],
) -> None:
    """Write the entry for the run after one that left nothing to do: it need not be the second.

    `say` carries out such a run. It gets a folder that nobody takes for one, which is gone after.
    """
    if not _is_known(words):
        return
    spare = type(run)(store.root / "tmp" / f"{run.id[:-4]}{os.urandom(2).hex()}")
    with suppress(OSError, ValueError, KeyError):
        spare.path.mkdir(parents=True)
        try:
            for name in ("plan.json", "run.json"):
                (spare.path / name).hardlink_to(run.path / name)
            with _copied(words, *map(_nowhere, (sys.stdout, sys.stderr))) as told:
                code = say(spare)
            entry = None if code else _entry(told, planned, plan, store, spare)
            if entry is not None:
                _write(Path(again.entry_path(entry["asked"])), _moved(entry, spare, run))
        finally:
            for path in spare.path.iterdir():
                path.unlink()
            spare.path.rmdir()


def _nowhere(stream: TextIO) -> TextIO:
    return cast(TextIO, _Nowhere(stream))


class _Nowhere:
    """A stream that drops what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _moved(entry: dict[str, Any], spare: Run, run: Run) -> dict[str, Any]:
    """Return an entry with a run's folder where runs are. Raise ValueError if it cannot be."""
    texts = {
        name: entry[name].replace(str(spare.path), str(run.path.with_name(spare.id)))
        for name in ("stdout", "stderr")
    }
    if any(f"tmp/{spare.id}" in text for text in texts.values()):
        raise ValueError("a path is written in another way")
    return {**entry, **texts, "runs": os.path.abspath(run.path.parent)}  # noqa: PTH100


def _entry(
    told: Told, planned: Planned, plan: Plan, store: Store, run: Run
) -> dict[str, Any] | None:
    facts = run.facts()
    events = [json.loads(line) for line in run.events_path.read_bytes().splitlines()]
    if not (_is_usual(facts) and {event["type"] for event in events} <= _NOTHING):
        return None
    seen = _seen(planned)
    if seen is None or len(plan.nodes) > MAX_NODES:
        return None
    report = run.report_path
    return {
        "format": again.FORMAT,
        "asked": again.asking(told.words),
        "seen": seen,
        "artifacts": {
            os.path.abspath(path): files  # noqa: PTH100  # links stay as given
            for node in plan.nodes
            for path, files in _artifact(store, node.key)
        },
        "stdout": told.stdout.text,
        "stderr": told.stderr.text,
        "runs": os.path.abspath(run.path.parent),  # noqa: PTH100
        "run": run.id,
        "slug": run.id.rsplit("-", maxsplit=3)[0],
        "plan": (run.path / "plan.json").read_text(encoding="utf-8"),
        "facts": facts,
        "events": events,
        "report": _same_file(report, store, plan) if report.exists() else None,
    }


def _seen(planned: Planned) -> dict[str, dict[str, Any]] | None:
    """Return what the plan was compiled from, if it still is that."""
    plans = compiled.CompiledPlans(compiled.default_folder(os.environ))
    known = plans.seen(planned.recipe, planned.overrides)
    if known is None:
        return None
    names: dict[str, list[str]] = {kind: list(facts) for kind, facts in known.items()}
    names["text"] += [*_MACHINE, str(settings.user_file_path(os.environ))]
    names["folder"].append(_GPUS)
    names["tree"] = [str(path) for path in compiled.INSTALLED]
    found = {kind: {name: again.LOOKS[kind](name) for name in of} for kind, of in names.items()}
    return found if plans.seen(planned.recipe, planned.overrides) == known else None


def _is_usual(facts: Mapping[str, Any]) -> bool:
    """Tell whether a run was on this machine, in a local store, with nothing else to feed."""
    given = facts["settings"]
    others = {name for name, value in given.items() if value and name not in _SETTINGS}
    is_here = given["executor"] == "local" and not given["remote"]
    return is_here and others <= {"executor"}


def _artifact(store: Store, key: str) -> list[tuple[str, list[Any]]]:
    artifact = store.get(key)
    if artifact is None:
        raise KeyError(key)
    files = {entry.name: entry.size_bytes for entry in artifact.manifest.files}
    return [(str(artifact.path), [again.text(str(artifact.path / MANIFEST)), files])]


def _same_file(report: Path, store: Store, plan: Plan) -> str:
    """Return the file in the store that the report of a run is."""
    for node in plan.nodes:
        artifact = store.get(node.key)
        found = artifact.file(report.name) if artifact is not None else report
        if found is not report and found.is_file() and found.samefile(report):
            return os.path.abspath(found)  # noqa: PTH100
    raise KeyError(report.name)


def _write(path: Path, entry: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(entry), encoding="utf-8")
    temporary.replace(path)
    entries = sorted(path.parent.glob("*.json"), key=lambda found: found.stat().st_mtime)
    for entry_path in entries[:-MAX_ENTRIES]:
        entry_path.unlink(missing_ok=True)
