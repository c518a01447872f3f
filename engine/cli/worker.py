"""The process of one node: joins the runtime with the installed stages. Not a verb for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine import catalog
from engine.runtime import worker


def main(arguments: list[str]) -> int:
    """Run the job in a file; an optional second argument is the descriptor of the message pipe."""
    descriptor = int(arguments[1]) if len(arguments) > 1 else None
    if descriptor is not None:
        worker.die_with_parent(sys.stdin.fileno())
    job = worker.job_from_json(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    names = catalog.LocalPins(job.folder, lambda path: "")
    world = worker.World(catalog.stage, names.locate, names.locate_model)
    return worker.work(job, world, worker.sender(descriptor))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
