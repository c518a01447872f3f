"""A worker process that knows the fake stages; run as a script."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.runtime import shared, worker
from tests.runtime.fake_stages import STAGES

if __name__ == "__main__":
    if "ADAPT_TEST_QUICK_S" in os.environ:  # leases and mirrors of the shared store
        shared.LEASE_STALE_S = shared.MIRROR_EVERY_S = float(os.environ["ADAPT_TEST_QUICK_S"])
    worker.die_with_parent(sys.stdin.fileno())
    job = worker.job_from_json(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    world = worker.World(STAGES.__getitem__, Path, str)
    raise SystemExit(worker.work(job, world, worker.sender(int(sys.argv[2]))))
