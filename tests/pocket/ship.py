"""Copies a pocket model out of a finished run into the package: `tests.pocket.ship NAME STORE`.

`make pocket` calls it after each of the recipes in `recipes/pocket`. The card beside the weights is
written by hand, from what the run measured.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from engine.runtime import runs
from engine.runtime.store import Store

ROOT = Path(__file__).resolve().parents[2]
NODES = {"base": "train", "judge": "train", "synthesizer": "synthesizer"}
CARD = "README.md"


def ship(name: str, store: Store) -> Path:
    """Replace everything but the card in `engine/pocket/NAME`; return the folder."""
    recipe = ROOT / "recipes" / "pocket" / f"{name}.yaml"
    run = runs.newest(store, recipe)
    if run is None:
        raise SystemExit(f"{store.path} has no run of {recipe}")
    artifact = store.get(run.plan().node(NODES[name]).key)
    if artifact is None:
        raise SystemExit(f"`{NODES[name]}` of {run.id} is not finished")
    folder = ROOT / "engine" / "pocket" / name
    for old in folder.iterdir():
        if old.name != CARD:
            old.unlink()
    for path in artifact.file("model").iterdir():
        target = folder / path.name
        shutil.copyfile(path, target)
        target.chmod(0o644)
    return folder


if __name__ == "__main__":
    print(ship(sys.argv[1], Store(Path(sys.argv[2]))))
