"""What a store of many artifacts and a run of many events cost a plan.

    python -m tests.bench.scale --work /tmp/bench [--artifacts 20000] [--lines 1000000]

Writes a store of that many artifacts of ten stages and one run with that many lines of progress,
once, and measures in turns: the reasons of a plan of ten nodes that will all run, the same again,
what earlier runs took, and, to compare with, reading all manifests.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from engine.artifacts import Manifest
from engine.plan import keys
from engine.plan.stage import Node, Plan
from engine.runtime import outlook, timings
from engine.runtime.store import Store
from tests.bench.measure import seconds, spread

NUM_STAGES = 10


def preimage(stage: str, number: int, rows: int | None = None) -> dict[str, Any]:
    """Return a pre-image of the usual size; `rows` is the number of its input, if not its own."""
    params = {f"setting_{i}": i / 7 for i in range(40)} | {"rate": number}
    inputs = {"rows": {"rows": keys.text_digest(f"{stage}{number if rows is None else rows}")}}
    pins = {f"model_{i}": keys.text_digest(str(i)) for i in range(8)}
    return {
        "stage": stage, "version": 1, "params": {"model": params, "other": dict(params)},
        "inputs": inputs, "pins": pins, "seed": 42,
    }  # fmt: skip


def node(stage: str, number: int, rows: int | None = None) -> Node:
    """Return a node with that pre-image."""
    found = preimage(stage, number, rows)
    return Node(stage, stage, found["params"], {}, keys.digest(found), found, 42, {}, {})


def made_store(root: Path, num: int) -> Store:
    """Write the artifacts, as small as they can be."""
    store = Store(root)
    for number in range(num):
        one = node(f"stage{number % NUM_STAGES}", number)
        folder = root / "artifacts" / one.key[:2] / one.key
        if folder.exists():
            continue
        folder.mkdir(parents=True)
        manifest = Manifest(one.key, one.stage, (), {"rows": 1.0}, (), one.preimage, "")
        data = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
        (folder / "manifest.json").write_text(json.dumps(data, indent=1, sort_keys=True))
    return store


def made_run(store: Store, num: int) -> None:
    """Write the log of one run."""
    folder = store.runs / f"long-{num}"
    if (folder / "run.json").exists():
        return
    (folder / "logs").mkdir(parents=True)
    with (folder / "events.jsonl").open("w") as file:
        for number in range(num):
            event: dict[str, Any] = {
                "type": "node_progress", "time": 1.0 * number, "node": "stage1",
                "done": number, "total": num, "unit": "rows",
            }  # fmt: skip
            if number % (num // NUM_STAGES) == 0:
                event = {
                    "type": "node_finished", "time": 1.0 * number, "node": "stage1", "wall_s": 3.0,
                    "cpu_s": 2.0, "peak_memory_gb": 1.0, "counts": {"rows": 1.0},
                }  # fmt: skip
            file.write(json.dumps(event) + "\n")
    facts = {"run": folder.name, "recipe": "long", "started_at": 1.0, "settings": {}}
    (folder / "run.json").write_text(json.dumps(facts))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the store is kept")
    parser.add_argument("--artifacts", type=int, default=20_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each [3]")
    args = parser.parse_args()
    root = args.work.resolve() / f"scale-{args.artifacts}-{args.lines}"
    store = made_store(root, args.artifacts)
    made_run(store, args.lines)
    stages = [f"stage{number}" for number in range(NUM_STAGES)]
    plan = Plan("new", tuple(node(stage, -1 - n) for n, stage in enumerate(stages)))
    moved = (plan.nodes[0], *(node(stage, n + 1, -1) for n, stage in enumerate(stages[1:])))
    usual = Plan("usual", moved)
    cases = {
        "reasons of ten nodes, all changed": lambda: outlook.outlook(plan, store),
        "reasons of ten nodes, one changed": lambda: outlook.outlook(usual, store),
        "what earlier runs took": lambda: timings.measurements(store),
        "all manifests": lambda: list(store.manifests()),
    }
    found: dict[str, list[float]] = {}
    for _ in range(args.repeat):
        for path in store.cache.glob("preimages*"):
            path.unlink()
        first = {"the same, without a cache": cases["reasons of ten nodes, one changed"]}
        for name, work in {**first, **cases}.items():
            before = time.process_time()
            work()
            found.setdefault(name, []).append(time.process_time() - before)
    print(
        f"{args.artifacts} artifacts, {args.lines} lines\n\n| what | processor time (range) |\n|---|---|"
    )
    for name, times in found.items():
        cpu = spread(times)
        print(f"| {name} | **{seconds(cpu.median)}** ({seconds(cpu.low)} - {seconds(cpu.high)}) |")


if __name__ == "__main__":
    main()
