"""A store with one finished run, made of hand-made artifacts and a real report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact, Inputs, Outputs
from engine.plan import keys
from engine.plan.stage import Machine, Node, Plan, Tools
from engine.runtime import runs
from engine.runtime.runs import Run
from engine.runtime.store import Store
from engine.stages import report
from tests.rendering.building import nodes

RECIPE = {"name": "mine", "description": "A test."}


def finished(store: Store, folder: Path, *, has_report: bool = True, **changes: Any) -> Run:
    """Publish every node of an arm, then its report; return the run."""
    planned, done = [], {}
    for name, artifact in nodes(folder, **changes).items():
        node = _node(name, dict(artifact.manifest.preimage))
        planned.append(node)
        done[name] = _publish(store, node, artifact.path, dict(artifact.manifest.counts), {})
    if has_report:
        planned.append(_report(store, folder, done))
    facts = {"only": None if has_report else "train", "recipe_path": "mine.yaml"}
    return runs.create(store, Plan("mine", tuple(planned)), facts)


def run_report(folder: Path, done: dict[str, Artifact]) -> Outputs:
    """Run the report stage on the artifacts of the arm `main`."""
    plan = tuple({"id": name, "stage": name, "key": a.manifest.key} for name, a in done.items())
    params = report.Params(recipe="mine", raw=RECIPE, plan=plan, arms=("main",))
    outputs = Outputs(folder / "report")
    outputs.path.mkdir()
    labelled = {f"main/{name}": artifact for name, artifact in done.items()}
    report.STAGE.run(Inputs({"artifacts": labelled}), params, outputs, _tools(folder))
    return outputs


def _report(store: Store, folder: Path, done: dict[str, Artifact]) -> Node:
    outputs = run_report(folder, done)
    parents = {"artifacts": {f"main/{name}": artifact for name, artifact in done.items()}}
    inputs = {"artifacts": {f"main/{name}": name for name in done}}
    node = _node("report", {"params": {}}, inputs)
    _publish(store, node, outputs.path, outputs.counts(), parents)
    return node


def _publish(store: Store, node: Node, path: Path, counts: Any, parents: Any) -> Artifact:
    staging = store.staging(node.key)
    shutil.copytree(path, staging, dirs_exist_ok=True)
    return store.publish(node, staging, counts, parents)


def _node(name: str, preimage: dict[str, Any], inputs: Any = None) -> Node:
    preimage = {**preimage, "id": name}
    return Node(
        id=name,
        stage=name.split("/")[0],
        params={},
        inputs=inputs or {},
        key=keys.digest(preimage),
        preimage=preimage,
        seed=42,
        prompts={},
        origin={},
        arms=("main",),
    )


def _tools(folder: Path) -> Tools:
    return Tools(
        seed=42,
        scratch=folder,
        prompts={},
        machine=Machine(),
        locate=Path,
        locate_model=str,
        log=lambda message: None,
        progress=lambda *report: None,
    )
