"""`adapt` with nine tasks that do nothing: all is real but the recipe's language and the stages.

    python nine.py run nine.yaml --store FOLDER      the same arguments as `adapt`
    python nine.py JOB DESCRIPTOR                    the process of one node

The recipe holds `stages: {NAME: {needs: [...], value: N}}`, as the one of floor.py does. A task
writes its name and its value and ignores what it reads, like the shell lines of the other tools.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from engine.artifacts import Inputs, Outputs
    from engine.plan.stage import Node, Plan, Stage, Tools
    from engine.runtime.digests import DigestCache


def compiled(recipe: Path, overrides: Sequence[str], digests: DigestCache) -> Plan:
    """Return the plan of a recipe of nine tasks: what `planning.compile_recipe` is for real ones."""
    import yaml

    from engine.plan.stage import Plan

    document = yaml.load(recipe.read_bytes(), yaml.CSafeLoader)
    nodes: dict[str, Node] = {}
    for name, task in document["stages"].items():  # written in the order of their needs
        nodes[name] = _node(name, task["value"], [nodes[need] for need in task["needs"]])
    return Plan(recipe.stem, tuple(nodes.values()))


def _node(name: str, value: int, parents: Sequence[Node]) -> Node:
    from engine.plan import keys
    from engine.plan.stage import Node

    params = {"task": name, "value": value}
    preimage: dict[str, Any] = {"stage": "task", "version": 1, "params": params, "seed": 1}
    preimage["inputs"] = {"tasks": {parent.id: parent.key for parent in parents}}
    return Node(
        id=name,
        stage="task",
        params=params,
        inputs={"tasks": {parent.id: parent.id for parent in parents}},
        key=keys.digest(preimage),
        preimage=preimage,
        seed=1,
        prompts={},
        origin={"file": "nine.yaml", "line": 1, "column": 1},
    )


def stage(name: str) -> Stage:
    """Return the only stage."""
    from dataclasses import dataclass

    from engine.plan.stage import Needs, Port, Stage

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Params:
        task: str
        value: int

    def run(inputs: Inputs, params: Params, outputs: Outputs, tools: Tools) -> None:
        outputs.write_json("made.json", {"task": params.task, "value": params.value})

    return Stage(name, 1, (Port("tasks", required=False, many=True),), Params, Needs(), run)


def work(job: str, descriptor: int) -> int:
    """Run the job in a file: what `engine.cli.worker` does with the installed stages."""
    import json
    from pathlib import Path

    from engine.runtime import worker

    worker.die_with_parent(sys.stdin.fileno())
    found = worker.job_from_json(json.loads(Path(job).read_text(encoding="utf-8")))
    return worker.work(found, worker.World(stage, Path, str), worker.sender(descriptor))


def use_tasks() -> None:
    """Put the recipe of tasks in the place of ours."""
    from engine.cli import planning, run

    planning.compile_recipe = compiled
    run.worker_command = lambda _: (__file__,)  # type: ignore[assignment]


if __name__ == "__main__":
    if sys.argv[1].endswith(".json"):
        raise SystemExit(work(sys.argv[1], int(sys.argv[2])))
    from engine import cli
    from engine.cli import again

    repeated = again.repeat(sys.argv[1:])
    if repeated is not None:
        cli.end(repeated)
    use_tasks()
    cli.command()
