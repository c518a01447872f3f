"""Plans compiled before, found again by everything they were compiled from.

Compiling imports YAML, the schema validator and every stage, which is most of what a `plan` or a
run with nothing to do costs. An entry names each file that was opened and each folder that was
listed while its plan was compiled, as Python's own audit events tell them: no reader can be
forgotten. It is used only when all of them are what they were; else the recipe is compiled anew.
Deleting any entry, or the whole folder, is safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from engine import __version__, package_data
from engine.cli.again import STORE
from engine.plan import graph
from engine.plan.stage import Plan

FORMAT = 1
MAX_FILES = 20_000  # a plan over more files is not kept: checking them costs what compiling does
MAX_NODES = 2_000
MAX_ENTRIES = 200
RACY_S = 2.0  # a data file that changed this lately may change again without a trace in `stat`

Seen = dict[str, dict[str, Any]]  # text, data, folder -> name -> what it was


class Watch:
    """Notes which files are opened and which folders are listed while it is on."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.is_on = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take in an audit event."""
        if not self.is_on or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open":
            self.files.add(os.path.abspath(arguments[0]))  # noqa: PTH100  # links stay as given
        elif event in ("os.scandir", "os.listdir"):
            self.folders.add(os.path.abspath(arguments[0]))  # noqa: PTH100

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch for the length of a `with` block; the hook itself can never be removed."""
        sys.addaudithook(self)
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


class CompiledPlans:
    """The entries in a cache folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plan(
        self,
        recipe: Path,
        overrides: Sequence[str],
        compiled: Callable[[], Plan],
        data_files: Callable[[], Iterable[str]],
        digests: Path,
    ) -> Plan:
        """Return the plan of a recipe: the kept one if nothing moved, else what `compiled` returns.

        `data_files` names, after compiling, the files whose digests were remembered in the folder
        `digests` and which were therefore not opened.
        """
        path = self._path(recipe, overrides)
        installed = installation()
        kept = _read(path, installed)
        if kept is not None:
            return kept
        watch, started = Watch(), time.time()
        with watch.on():
            plan = compiled()
        if len(plan.nodes) <= MAX_NODES:
            data = set(data_files())
            known = f"{os.path.abspath(digests)}{os.sep}"  # noqa: PTH100
            read = watch.files - data
            texts = {name for name in read if not name.startswith((known, *_NOT_WATCHED))}
            folders = {name for name in watch.folders if not _is_installed(f"{name}/")}
            home = os.path.dirname(os.path.abspath(recipe))  # noqa: PTH100, PTH120
            folders |= {home, f"{home}/benchmarks"}
            self._keep(path, installed, _seen(texts, data, folders, started), plan)
        return plan

    def seen(self, recipe: Path, overrides: Sequence[str]) -> Seen | None:
        """Return what the kept plan of a recipe was compiled from, if nothing of it moved."""
        path = self._path(recipe, overrides)
        if _read(path, installation()) is None:
            return None
        found: Seen = json.loads(path.read_text(encoding="utf-8"))["seen"]
        return found

    def _path(self, recipe: Path, overrides: Sequence[str]) -> Path:
        where = [os.path.abspath(recipe), str(Path.cwd()), *overrides]  # noqa: PTH100
        return self._folder / f"{hashlib.sha256(json.dumps(where).encode()).hexdigest()}.json"

    def _keep(self, path: Path, installed: str, seen: Seen, plan: Plan) -> None:
        """Write an entry; a cache that cannot be written is done without."""
        if any(fact is None for facts in seen.values() for fact in facts.values()):
            return
        document = {
            "format": FORMAT,
            "installed": installed,
            "seen": seen,
            "plan": graph.to_json(plan),
        }
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(path)
            entries = sorted(self._folder.glob("*.json"), key=lambda entry: entry.stat().st_mtime)
            for entry in entries[:-MAX_ENTRIES]:
                entry.unlink(missing_ok=True)


def default_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's cache folder for compiled plans."""
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "~")) / ".cache")
    return Path(home).expanduser() / "adapt" / "plans"


@cache
def installation() -> str:
    """Return a fingerprint of the engine's own files: a changed version of a stage moves plans."""
    whole = hashlib.sha256(f"{__version__} {sys.version}".encode())
    for folder in INSTALLED:
        for path, found in _stats(str(folder)):
            whole.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
    return whole.hexdigest()


def _stats(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _stats(entry.path)
        elif entry.is_file():
            yield entry.path, entry.stat()


def _is_installed(name: str) -> bool:
    return name.startswith(_NOT_WATCHED)


def _read(path: Path, installed: str) -> Plan | None:
    """Return the plan of an entry if everything is as it was, else None."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT or document["installed"] != installed:
            return None
        if not all(
            _LOOK[kind](name) == fact
            for kind, facts in document["seen"].items()
            for name, fact in facts.items()
        ):
            return None
        return graph.from_json(document["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seen(
    texts: Iterable[str], data: Iterable[str], folders: Iterable[str], started: float
) -> Seen:
    """Return what the inputs of a plan are; None for one that changed while it was compiled."""
    return {
        "text": {name: _text(name) if _is_older(name, started) else None for name in texts},
        "data": {name: _data(name) if _is_older(name, started - RACY_S) else None for name in data},
        "folder": {name: _folder(name) for name in folders},
    }


def _is_older(name: str, moment: float) -> bool:
    """Tell whether a file has not changed since a moment; one that is not there has not."""
    try:
        found = Path(name).stat()
    except OSError:
        return True
    return max(found.st_mtime, found.st_ctime) < moment


def _text(name: str) -> Any:
    try:
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()
    except OSError:
        return "absent"


def _data(name: str) -> Any:
    try:
        found = os.stat(name)  # noqa: PTH116  # of twenty thousand pictures, with every plan
    except OSError:
        return "absent"
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _folder(name: str) -> Any:
    try:
        names = sorted(os.listdir(name))  # noqa: PTH208
        # The first run makes its store beside the recipe, and must not spoil its own entry.
        return hashlib.sha256("\0".join(n for n in names if n != STORE).encode()).hexdigest()
    except OSError:
        return "absent"


_LOOK: dict[str, Callable[[str], Any]] = {"text": _text, "data": _data, "folder": _folder}
INSTALLED = (
    Path(__file__).resolve().parents[1],
    *(package_data.folder(name) for name in ("recipes", "schemas", "prompt_templates")),
)
# What `installation` covers, and Python's own modules; not all of /usr, where data may well lie.
_PACKAGES = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
_NOT_WATCHED = tuple(
    f"{folder}{os.sep}" for folder in (*INSTALLED, Path(os.__file__).parent, *_PACKAGES)
)
