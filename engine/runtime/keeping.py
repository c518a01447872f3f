"""What a store may forget: what no run, and nothing else that was named, still reaches.

Safe beside runs that go on: what somebody has locked stays, a folder gets another name before it is
taken apart, and a run whose input went all the same makes it anew.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.runtime import grades, runs
from engine.runtime.runs import Run
from engine.runtime.store import Store
from engine.runtime.verify import all_keys

HINT = "what it reaches is not known, so nothing is removed; remove its folder if you need it not"

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Keep:
    """Which runs are kept; all, unless one of the two is set."""

    num_per_recipe: int | None = None
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rubbish:
    """One folder or file that can go."""

    kind: str  # run, artifact, grades, scratch, leftover, damaged, lock, index
    name: str
    path: Path
    why: str
    key: str = ""  # whose lock guards it


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a store, told apart."""

    kept: Sequence[Run]
    old: Sequence[Run]
    busy_keys: Set[str]  # of runs that go on
    last_used: Mapping[str, float]  # by key of a kept run, seconds since 1970


def rubbish(
    store: Store,
    *,
    roots: Iterable[str] = (),
    keep: Keep = Keep(),
    max_bytes: int | None = None,
    now: float,
) -> list[Rubbish]:
    """Return what can go; `roots` are keys that stay whatever the runs say.

    Grades of what is reached stay as well, even when room is short: nobody can make them anew.
    """
    told = _told_apart(store, keep, now)
    reached = {*roots, *told.last_used, *told.busy_keys}
    roots = {*roots, *(key for of in reached for key in grades.published_keys(store, of))}
    reached |= roots
    found = [Rubbish("run", run.id, run.path, "older than what is kept") for run in told.old]
    gone = {key for key in all_keys(store) if key not in reached}
    found += [_artifact(store, key, "no kept run reaches it") for key in sorted(gone)]
    found += _grades(store, reached)
    if max_bytes is not None:
        over = _least_recently_used(store, gone, {*roots, *told.busy_keys}, told, max_bytes)
        found += [_artifact(store, key, "least recently used") for key in over]
        gone |= set(over)
    return [*found, *_leftovers(store, reached - gone, gone)]


def remove(store: Store, items: Iterable[Rubbish]) -> tuple[list[Rubbish], int]:
    """Remove items that nobody has locked; return those that went, and the bytes set free."""
    sizes = _Sizes()
    went = []
    for item in items:
        lock = store.lock(item.key) if item.key else None
        if lock is not None and not lock.try_acquire():
            continue
        try:
            sizes.add(item.path)
            _take_apart(store, item.path)
            went.append(item)
        finally:
            if lock is not None:
                lock.release()
    return went, sizes.freed_bytes


def freed_bytes(items: Iterable[Rubbish]) -> int:
    """Return how many bytes removing items sets free; what is linked from elsewhere stays."""
    sizes = _Sizes()
    for item in items:
        sizes.add(item.path)
    return sizes.freed_bytes


def total_bytes(store: Store) -> int:
    """Return what a store takes; files that share their content by a hard link count once."""
    sizes = _Sizes()
    sizes.add(store.root)
    return sizes.all_bytes


class _Sizes:
    """Adds up files by inode: a link frees nothing while another one is left."""

    def __init__(self) -> None:
        self._links: dict[Inode, list[int]] = {}  # size, links seen, links there are

    def add(self, path: Path) -> None:
        for found in _stats(path):
            entry = self._links.setdefault(
                (found.st_dev, found.st_ino), [found.st_size, 0, found.st_nlink]
            )
            entry[1] += 1

    @property
    def freed_bytes(self) -> int:
        return sum(size for size, seen, there in self._links.values() if seen >= there)

    @property
    def all_bytes(self) -> int:
        return sum(size for size, _, _ in self._links.values())


def _told_apart(store: Store, keep: Keep, now: float) -> Runs:
    kept, old = [], []
    busy: set[str] = set()
    used: dict[str, float] = {}
    seen: dict[str, int] = {}
    for run in reversed(_whole_runs(store)):
        facts = run.facts()
        recipe = str(facts["recipe"])
        seen[recipe] = seen.get(recipe, 0) + 1
        is_busy = run.status().state == "running"
        is_late = keep.num_per_recipe is not None and seen[recipe] > keep.num_per_recipe
        is_old = keep.age_s is not None and now - facts["started_at"] > keep.age_s
        if (is_late or is_old) and not is_busy:
            old.append(run)
            continue
        kept.append(run)
        planned = _keys_of(run)
        busy |= planned if is_busy else set()
        for key in planned:
            used[key] = max(used.get(key, 0.0), facts["started_at"])
    return Runs(kept, old, busy, used)


def _whole_runs(store: Store) -> list[Run]:
    """Return all runs; raise RequestError if one cannot be read: it may still reach anything."""
    found = runs.all_runs(store)
    known = {run.path for run in found}
    for path in store.runs.glob("*/run.json"):
        if path.parent not in known:
            raise runs.damaged(Run(path.parent), path.name, HINT)
    return found


def _keys_of(run: Run) -> set[str]:
    try:
        plan = json.loads((run.path / "plan.json").read_text(encoding="utf-8"))
        return {str(node["key"]) for node in plan["nodes"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise runs.damaged(run, "plan.json", HINT) from error


def _grades(store: Store, reached: Set[str]) -> Iterator[Rubbish]:
    for of, grader, folder in grades.graded(store):
        if of not in reached:
            why = "no kept run reaches what was graded"
            yield Rubbish("grades", f"{of}/{grader}", folder, why, grades.lock_key(of, grader))


def _artifact(store: Store, key: str, why: str) -> Rubbish:
    return Rubbish("artifact", key, store.folder(key), why, key)


def _least_recently_used(
    store: Store, gone: Set[str], needed: Set[str], told: Runs, max_bytes: int
) -> list[str]:
    """Return the keys that have to go as well for the rest to fit."""
    left = [key for key in all_keys(store) if key not in gone]
    size_of = {key: freed_bytes([_artifact(store, key, "")]) for key in left}
    too_much = sum(size_of.values()) - max_bytes
    chosen = []
    for key in sorted(left, key=lambda key: told.last_used.get(key, 0.0)):
        if too_much <= 0:
            break
        if key not in needed:
            chosen.append(key)
            too_much -= size_of[key]
    return chosen


def _leftovers(store: Store, reached: Set[str], gone: Set[str]) -> Iterator[Rubbish]:
    for path in _children(store.root / "scratch"):
        if store.folder(path.name).is_dir() and path.name not in gone:
            yield Rubbish("scratch", path.name, path, "its artifact is there", path.name)
        elif path.name not in reached:
            yield Rubbish("scratch", path.name, path, "no kept run reaches it", path.name)
    for path in _children(store.root / "tmp"):
        yield Rubbish("leftover", path.name, path, "of a dead writer", path.name.split("-")[0])
    for path in _children(store.root / "damaged"):
        yield Rubbish("damaged", path.name, path, "was set aside")
    for path in _children(store.root / "locks"):
        if path.suffix == ".lock" and not store.lock(path.stem).is_held():
            yield Rubbish("lock", path.name, path, "its holder is dead", path.stem)
    for path in _children(store.root / "realised"):
        key = _key_in(path)
        if key in gone or not store.folder(key or "-").is_dir():
            yield Rubbish("index", path.name, path, "its artifact is not there")


def _key_in(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads(path.read_text(encoding="utf-8"))["key"])
    return None


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Yield what is told of a file, or of every file below a folder; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            for name in names:
                with suppress(FileNotFoundError):
                    yield os.lstat(os.path.join(folder, name))  # noqa: PTH118
    else:
        with suppress(FileNotFoundError):
            yield path.lstat()


def _take_apart(store: Store, path: Path) -> None:
    """Remove a file or a folder; a folder gets a name that means nothing before its files go."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    doomed = store.root / "tmp" / f"gc-{secrets.token_hex(8)}"
    doomed.parent.mkdir(exist_ok=True)
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed)
