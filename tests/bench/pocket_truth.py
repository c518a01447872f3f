"""Share of generated tasks that are true of their scene: all, those the judge kept, the others.

`python -m tests.bench.pocket_truth [STORE]` reads the newest run of the quickstart in a store.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from engine.pocket import cells
from engine.pocket.cell_truth import is_true
from engine.records import Record
from engine.runtime import runs
from engine.runtime.store import Store

TRUTHS = {True: "true", False: "false", None: "undecided"}


def truths(tasks: Iterable[Record], seed: int = 0) -> Counter[str]:
    """Count the true, false and undecidable tasks of the world `cells`."""
    found: Counter[str] = Counter()
    for task in tasks:
        split, index = re.match(r"(\w+)/(\d+)", task.meta.source_id).groups()  # type: ignore[union-attr]
        field = cells.field(seed, split, int(index))
        found[TRUTHS[is_true(field, task.instruction, task.answer("precise"))]] += 1
    return found


def line(name: str, found: Counter[str]) -> str:
    """Return a line for people: share true of the decided ones."""
    decided = found["true"] + found["false"]
    share = 100 * found["true"] / decided if decided else float("nan")
    return f"{name}: {share:.1f} % of {decided} decided tasks are true ({dict(found)})"


def main(store_path: str) -> None:
    """Print the shares of the newest run: of what was generated, kept by the judge, and dropped."""
    store = Store(Path(store_path))
    run = runs.newest(store)
    assert run is not None, "the store has no run"
    plan = run.plan()

    def found(node_id: str, row_set: str) -> Counter[str]:
        artifact = store.get(plan.node(node_id).key)
        assert artifact is not None, f"{node_id} is not finished"
        return truths(artifact.records(row_set))

    generated, kept = found("generate", "tasks"), found("filter", "kept")
    for name, counts in (("generated", generated), ("kept", kept), ("dropped", generated - kept)):
        print(line(name, counts))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".adapt")
