"""Carries a run with everything it made from one store to another, through a folder.

The folder is a small store of its own, so `adapt report --store FOLDER` reads it. It holds no
absolute path, host name or command line. What is read back is checked before it is taken: names,
digests, and that each key is the digest of its pre-image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact, Manifest
from engine.diagnostics import Diagnostic, RequestError
from engine.plan import graph, keys
from engine.runtime import grades
from engine.runtime.runs import Run
from engine.runtime.store import MANIFEST, Store, read_manifest, seal, stays_inside, write_whole

FORMAT = 1
INDEX = "adapt-export.json"
_KEY = re.compile(r"[0-9a-f]{64}")
_RUN = re.compile(r"[A-Za-z0-9_.-]{1,200}")


@dataclass(frozen=True, slots=True)
class Carried:
    """What was carried over, and what was there already."""

    run: str
    new: tuple[str, ...]
    known: tuple[str, ...]
    num_bytes: int


def export(store: Store, run: Run, folder: Path) -> Carried:
    """Write a run and its artifacts into a folder; going on with one that was cut short is safe.

    Raises RequestError when an artifact is not in the store, or when the folder holds other things.
    """
    _check_target(folder, run)
    plan = run.plan()
    found = {node.key: store.get(node.key) for node in plan.nodes}
    missing = [node.id for node in plan.nodes if found[node.key] is None]
    if missing:
        hint = "run the recipe again, or choose a run that ended well"
        what = f"run `{run.id}` is not whole: `{missing[0]}` is not in the store"
        raise RequestError(Diagnostic("not-exportable", what, hint=hint))
    folder.mkdir(parents=True, exist_ok=True)
    graded = _graded(store, found)
    index = {"format": FORMAT, "run": run.id, "recipe": plan.recipe, "keys": sorted(found)}
    index["grades"] = [artifact.manifest.key for artifact in graded]
    write_whole(folder / INDEX, json.dumps(index, indent=1) + "\n")
    target = Store(folder)
    artifacts = [artifact for artifact in found.values() if artifact is not None]
    carried = _carry([*artifacts, *graded], target, run.id)
    for artifact in graded:
        grades.take_in(target, artifact)
    _write_run(run, target.runs / run.id)
    for name in ("locks", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return carried


def bring_in(folder: Path, store: Store) -> Carried:
    """Take an exported run into a store, artifact by artifact; the run itself comes last.

    What is in the store already stays as it is. Raises RequestError at the first thing that is not
    as it was exported; what was taken by then is whole.
    """
    _check_links(folder)
    index = _index(folder)
    source = Store(folder)
    artifacts = [_checked(source, key) for key in index["keys"]]
    graded = [_checked(source, key) for key in index.get("grades", ())]
    run = Run(source.runs / index["run"])
    try:
        planned = {node.key for node in run.plan().nodes}
    except RequestError as error:
        raise _refused(f"the plan of its run is no plan: {error}") from error
    if planned != set(index["keys"]):
        raise _refused("its artifacts are not those of its plan")
    if not all(grades.is_of(artifact.manifest.preimage, planned) for artifact in graded):
        raise _refused("its grades are not of what its run made")
    carried = _carry([*artifacts, *graded], store, run.id)
    for artifact in graded:
        grades.take_in(store, artifact)
    if not (store.runs / run.id).exists():
        _write_run(run, store.runs / run.id)
    return carried


def _graded(store: Store, planned: Iterable[str]) -> list[Artifact]:
    """Return the grades that people gave to what a run made."""
    names = (key for of in planned for key in grades.published_keys(store, of))
    return [artifact for key in names if (artifact := store.get(key)) is not None]


def _carry(artifacts: Iterable[Artifact], target: Store, run_id: str) -> Carried:
    new, known, num_bytes = [], [], 0
    for artifact in artifacts:
        key = artifact.manifest.key
        if target.get(key) is not None:
            known.append(key)
            continue
        lock = target.lock(key)
        if not lock.try_acquire():
            raise _refused(f"somebody is at work on {key} in the store {target.root}")
        try:
            num_bytes += _copy(artifact, target)
        finally:
            lock.release()
        new.append(key)
    return Carried(run_id, tuple(new), tuple(known), num_bytes)


def _copy(artifact: Artifact, target: Store) -> int:
    """Copy an artifact's files, check them on the way, and give them their name by one rename."""
    staging = target.staging(artifact.manifest.key)
    num_bytes = 0
    for entry in artifact.manifest.files:
        path = staging / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if _copied_digest(artifact.path / entry.name, path) != entry.sha256:
            target.discard(staging)
            raise _refused(f"`{entry.name}` of {artifact.manifest.key} is damaged")
        seal(path)
        num_bytes += entry.size_bytes
    shutil.copyfile(artifact.path / MANIFEST, staging / MANIFEST)
    (staging / MANIFEST).chmod(0o444)
    target.move_in(artifact.manifest.key, staging)
    return num_bytes


def _copied_digest(source: Path, target: Path) -> str:
    whole = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(1 << 20):
            whole.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return whole.hexdigest()


def _write_run(run: Run, folder: Path) -> None:
    """Write plan, facts, events and report of a run, without what only its machine knew."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    plan = json.dumps(graph.to_json(run.plan()), indent=1)
    write_whole(part / "plan.json", plan + "\n")
    write_whole(part / "run.json", json.dumps(_facts(run.facts()), indent=1, sort_keys=True) + "\n")
    if run.events_path.is_file():
        with (
            run.events_path.open(encoding="utf-8", errors="replace") as lines,
            (part / "events.jsonl").open("w", encoding="utf-8") as written,
        ):
            written.writelines(_anonymous(line) for line in lines)
    if run.report_path.is_file() and not run.report_path.is_symlink():
        shutil.copyfile(run.report_path, part / run.report_path.name)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**facts.get("settings", {}), "store": ".", "pythons": {}}
    recipe = Path(str(facts.get("recipe_path", ""))).name
    told = {"recipe_path": recipe, "recipe_folder": ".", "argv": [], "settings": settings}
    return {**facts, **told}


def _anonymous(line: str) -> str:
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if isinstance(event, dict) and "holder" in event:
        event["holder"] = {}
        return json.dumps(event) + "\n"
    return line


def _index(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(f"`{folder}` holds no export: {INDEX} cannot be read") from error
    is_sound = (
        isinstance(found, dict)
        and found.get("format") == FORMAT
        and _RUN.fullmatch(str(found.get("run"))) is not None
        and str(found.get("run")).strip(".")
        and isinstance(found.get("keys"), list)
        and isinstance(found.get("grades", []), list)
        and all(_KEY.fullmatch(str(key)) for key in (*found["keys"], *found.get("grades", ())))
    )
    if not is_sound:
        raise _refused(f"`{folder}/{INDEX}` is not what `adapt store export` writes")
    return dict(found)


def _check_links(folder: Path) -> None:
    """Refuse links anywhere in an export: what they lead to was never a part of it."""
    for where, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(where, name)
            if path.is_symlink():
                raise _refused(f"`{path.relative_to(folder)}` is a link")


def _checked(source: Store, key: str) -> Artifact:
    """Return an artifact of an export whose manifest and file names can be trusted."""
    folder = source.folder(key)
    manifest = read_manifest(folder / MANIFEST)
    if manifest is None:
        raise _refused(f"the manifest of {key} is missing or damaged")
    if manifest.key != key or keys.digest(manifest.preimage) != key:
        raise _refused(f"{key} is not the digest of its pre-image")
    _check_names(manifest, folder)
    return Artifact(folder, manifest)


def _check_names(manifest: Manifest, folder: Path) -> None:
    for entry in manifest.files:
        if not stays_inside(entry.name):
            raise _refused(f"`{entry.name}` leads out of its artifact")
        if not (folder / entry.name).is_file():
            raise _refused(f"`{entry.name}` of {manifest.key} is missing")


def _check_target(folder: Path, run: Run) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    hint = "choose an empty folder"
    if not (folder / INDEX).is_file():
        what = f"`{folder}` is not empty, and no export"
        raise RequestError(Diagnostic("not-exportable", what, hint=hint))
    if _index(folder)["run"] != run.id:
        what = f"`{folder}` holds the export of another run"
        raise RequestError(Diagnostic("not-exportable", what, hint=hint))


def _refused(why: str) -> RequestError:
    hint = "export it again where it comes from"
    return RequestError(Diagnostic("not-importable", why, hint=hint))
