"""`adapt run` on a plan of fake stages: everything is real but the recipe and the stages."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.cli import errors, run, settings
from engine.cli.planning import Planned
from engine.plan import graph
from engine.plan.stage import Plan
from engine.runtime.digests import DigestCache
from tests.runtime.fake_run import WORKER


def run_fake(plan: Plan, recipe: Path, store: Path, *flags: str) -> int:
    """Run a plan as if the recipe had been compiled to it; return the exit code."""
    args = parsed("run", str(recipe), "--store", str(store), "--threads", "2", *flags)
    digests = DigestCache(store / "cache" / "digests")
    planned = Planned(plan, recipe, (), digests)
    return run.run_planned(args, settings.resolve(args, {"HOME": ""}), planned, worker=WORKER)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_parser(parser.add_subparsers())
    return parser.parse_args(words)


def command(plan: Plan, folder: Path, *flags: str) -> list[str]:
    """Return the command that runs a plan in a process of its own."""
    path = folder / "plan.json"
    path.write_text(json.dumps(graph.to_json(plan)))
    return [sys.executable, __file__, str(path), str(folder / "store"), *flags]


if __name__ == "__main__":
    plan_path, store, *flags = sys.argv[1:]
    plan = graph.from_json(json.loads(Path(plan_path).read_text(encoding="utf-8")))
    os.environ.pop("ADAPT_STORE", None)
    recipe = Path(plan_path).with_name("fake.yaml")
    try:
        code = run_fake(plan, recipe, Path(store), *flags)
    except Exception as error:
        code = errors.explain(error, as_json=False)
    raise SystemExit(code)
