"""`adapt run` once more, when nothing has moved: what the last run said, and a run folder like its.

Importing the engine takes five times as long as looking at everything that a run with nothing to do
depends on. So such a run leaves an entry behind (`kept.py` writes it): the command, all that its
plan was compiled from, the manifest of every artifact and the size of every file in it. Each of
them is looked at again, every time; whatever differs, and be it a variable of the environment,
sends the command down the ordinary way. Deleting any entry is safe.

Nothing of the engine is imported here, and of Python only what is quick to import.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib

try:
    from _blake2 import (
        blake2b,
    )  # `hashlib` loads OpenSSL as well, for as long as all the rest takes
except ImportError:  # another Python than CPython
    from hashlib import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

FORMAT = 2
STORE = ".adapt"  # the store of those who name none
MANIFEST = "manifest.json"
SEALED_NS = 10**18  # time of change of the files of the store, as `engine.runtime.store` has it
_PASSING = ("_", "OLDPWD", "PWD", "SHLVL")  # variables that differ between two equal shells


def repeat(words: Sequence[str]) -> int | None:
    """Say what the same command said last time, if nothing has moved; else return None.

    Returns the exit code. Either a whole run folder is written, or none.
    """
    if words[:1] != ["run"]:
        return None
    try:
        asked = asking(words)
        with open(entry_path(asked), "rb") as file:  # noqa: PTH123  # pathlib takes long to import
            entry = json.loads(file.read())
        if entry["format"] != FORMAT or entry["asked"] != asked or not _holds(entry):
            return None
        run, lines = _write_run(entry)
        said = _said(entry, run, lines)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sys.stderr.write(entry["stderr"].replace(entry["run"], run))
    sys.stdout.write(said)
    return 0


def asking(words: Sequence[str]) -> dict[str, Any]:
    """Return who asks for what: equal values are the same command on the same machine."""
    variables = sorted(item for item in os.environ.items() if item[0] not in _PASSING)
    outputs = [stream.isatty() for stream in (sys.stdout, sys.stderr)]
    return {
        "words": list(words),
        "folder": os.getcwd(),  # noqa: PTH109
        "environ": _digest(repr(variables).encode()),  # a digest, since some are secrets
        "outputs": [*outputs, *(os.get_terminal_size(1) if outputs[0] else ())],
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "python": [sys.version, sys.executable, __file__],
    }


def entry_path(asked: Mapping[str, Any]) -> str:
    """Return where the entry of a command is."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME", "~") + "/.cache"
    name = zlib.crc32(json.dumps([asked["words"], asked["folder"]]).encode())
    return os.path.expanduser(f"{home}/adapt/again/{name:08x}.json")  # noqa: PTH111


def text(name: str) -> str | None:
    """Return the digest of a file; None when it is not there."""
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            return _digest(file.read())
    except OSError:
        return None


def data(name: str) -> list[int] | None:
    """Return what tells that a file did not change, without reading it; None when it is gone."""
    try:
        found = os.stat(name)  # noqa: PTH116
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def folder(name: str) -> str | None:
    """Return the digest of the names in a folder, but the store's; None when it is not there."""
    try:
        names = sorted(os.listdir(name))  # noqa: PTH208
        return _digest("\0".join(n for n in names if n != STORE).encode())
    except OSError:
        return None


def tree(name: str) -> str:
    """Return a digest of names, sizes and times of all files below a folder of the engine."""
    return _digest("\n".join(_lines(name)).encode())


def sizes(name: str, names: Sequence[str]) -> list[int]:
    """Return the sizes of files in a folder, -1 for one that was touched since it was published.

    Raise OSError when one is not there.
    """
    found = [os.stat(f"{name}/{file}") for file in names]  # noqa: PTH116
    return [one.st_size if one.st_mtime_ns == SEALED_NS else -1 for one in found]


LOOKS: dict[str, Callable[[str], Any]] = {
    "text": text,
    "data": data,
    "folder": folder,
    "tree": tree,
}


def _holds(entry: Mapping[str, Any]) -> bool:
    """Tell whether everything is as it was."""
    for kind, facts in entry["seen"].items():
        look = LOOKS[kind]
        if any(look(name) != fact for name, fact in facts.items()):
            return False
    return all(
        text(f"{path}/{MANIFEST}") == manifest and sizes(path, files) == list(files.values())
        for path, (manifest, files) in entry["artifacts"].items()
    )


def _write_run(entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Make the folder of a run that found everything cached; return its id and its events."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run = f"{entry['slug']}-{stamp}-{os.urandom(2).hex()}"
    path = f"{entry['runs']}/{run}"
    lines = list(_events(entry["events"], run))
    os.mkdir(path)  # noqa: PTH102
    try:
        if entry["report"] is not None:
            os.link(entry["report"], f"{path}/report.html")
        _write(f"{path}/plan.json", entry["plan"])
        _write(f"{path}/events.jsonl", "".join(lines))
        facts = {**entry["facts"], "run": run, "started_at": time.time()}
        # What makes it a run for everybody who looks for runs: last, and at once.
        _write(f"{path}/.run.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")
        os.rename(f"{path}/.run.json", f"{path}/run.json")  # noqa: PTH104
    except OSError:
        for name in os.listdir(path):  # noqa: PTH208
            os.unlink(f"{path}/{name}")  # noqa: PTH108
        os.rmdir(path)  # noqa: PTH106
        raise
    return run, lines


def _said(entry: Mapping[str, Any], run: str, lines: Sequence[str]) -> str:
    """Return what the command prints: a machine reads this run's events, not those of the last."""
    whole: str = entry["stdout"].replace(entry["run"], run)
    words = entry["asked"]["words"]
    if "--json" not in words:
        return whole
    result = {**json.loads(whole.splitlines()[-1]), "time": time.time()}
    result["nodes"] = [{**node, "ended_at": result["time"]} for node in result["nodes"]]
    return "".join([*(() if "--quiet" in words else lines), json.dumps(result), "\n"])


def _events(lines: Sequence[Mapping[str, Any]], run: str) -> Iterator[str]:
    for line in lines:
        event = {**line, "time": time.time()}
        if "run" in event:
            event |= {"run": run, "holder": {**event["holder"], "pid": os.getpid(), "start": ""}}
        yield json.dumps(event) + "\n"


def _lines(name: str) -> Iterator[str]:
    for entry in sorted(os.scandir(name), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _lines(entry.path)
        else:
            found = entry.stat()
            yield f"{entry.path} {found.st_size} {found.st_mtime_ns}"


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(content)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=20).hexdigest()
