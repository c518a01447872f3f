"""The undisturbed run that every round is compared with, and stores in some state of completion."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from engine.artifacts import Artifact
from engine.plan import graph
from engine.plan.stage import Plan
from engine.runtime import runs
from engine.runtime.store import MANIFEST, Store
from tests.chaos.processes import MARK

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reference:
    """A finished run. `folder` holds `store` and the user's `cache`, as a round's folder does."""

    recipe: Path
    folder: Path
    wall_s: float

    @cached_property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @cached_property
    def plan(self) -> Plan:
        run = runs.newest(self.store)
        assert run is not None
        return run.plan()

    @cached_property
    def seconds(self) -> dict[str, float]:
        """How long each node took."""
        run = runs.newest(self.store)
        assert run is not None
        return {name: node.wall_s for name, node in run.status().nodes.items()}

    def artifact(self, node_id: str) -> Artifact:
        """Return the undisturbed artifact of a node."""
        found = self.store.get(self.plan.node(node_id).key)
        assert found is not None
        return found

    def differences(self, store: Store) -> list[str]:
        """Compare every artifact of a store with the undisturbed one: manifest and bytes."""
        return [
            f"`{node.id}` {what}"
            for node in self.plan.nodes
            if (what := _difference(self.artifact(node.id), store.get(node.key)))
        ]


def make(recipe: Path, folder: Path) -> Reference:
    """Run a recipe undisturbed."""
    (folder / "cache").mkdir(parents=True)  # nothing is kept of files that are seconds old
    start = time.monotonic()
    done = subprocess.run(
        command(recipe, folder),
        cwd=folder,
        env=environment(folder, "reference"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Reference(recipe, folder, time.monotonic() - start)


def command(recipe: Path, folder: Path, verb: str = "run") -> list[str]:
    """Return the command of every run of a round: always the same."""
    store = str(folder / "store")
    return [*adapt(), verb, str(recipe), "--store", store, "--threads", "2", "--device", "cpu"]


def adapt() -> list[str]:
    return [sys.executable, "-m", "engine.cli"]


def environment(folder: Path, mark: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a round's processes: nothing of this user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ADAPT_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "OMP_WAIT_POLICY": "PASSIVE",
        MARK: mark,
        **(more or {}),
    }


def copy_in_some_state(
    reference: Reference, folder: Path, rng: Random, max_to_do: int | None = None
) -> list[str]:
    """Copy a finished store and take nodes out of it; return what is left to do."""
    shutil.copytree(reference.folder / "store", folder / "store", dirs_exist_ok=True)
    shutil.copytree(reference.folder / "cache", folder / "cache")
    missing = _some_nodes(reference.plan, rng, max_to_do)
    for name in missing:
        key = reference.plan.node(name).key
        shutil.rmtree(folder / "store" / "artifacts" / key[:2] / key)
    if rng.random() < 0.3:  # the very first run of a store
        shutil.rmtree(folder / "store" / "runs")
    return missing


def _some_nodes(plan: Plan, rng: Random, limit: int | None) -> list[str]:
    """Choose nodes: mostly the end of the plan, as after a stop, else any, as after clearing."""
    names = [node.id for node in plan.nodes]
    limit = limit or len(names)
    if rng.random() < 0.8:
        missing = names[-rng.randint(1, limit) :]
        return [name for name in missing if name not in _spared(plan, missing, rng)]
    return rng.sample(names, rng.randint(1, min(limit, len(names) // 2)))


def _spared(plan: Plan, missing: list[str], rng: Random) -> set[str]:
    """Choose nodes that are done although they come late in the plan, with all they need."""
    free = [name for name in missing if not graph.parents(plan.node(name)) & set(missing)]
    return {name for name in free[1:] if rng.random() < 0.5}


def published(store: Store, plan: Plan) -> dict[str, object]:
    """Return an identity of each whole artifact: equal as long as nothing was done twice."""
    found = {node.id: store.get(node.key) for node in plan.nodes}
    return {
        name: _identity(artifact.file(MANIFEST))
        for name, artifact in found.items()
        if artifact is not None
    }


def _identity(path: Path) -> object:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _difference(wanted: Artifact, found: Artifact | None) -> str | None:
    if found is None:
        return "is missing"
    unequal = [
        name
        for name, value in asdict(wanted.manifest).items()
        if _plain(value) != _plain(asdict(found.manifest)[name])
    ]
    if unequal:
        return f"has other {', '.join(unequal)} in its manifest"
    for entry in wanted.manifest.files:
        with found.file(entry.name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                return f"has another `{entry.name}`"
    return None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
