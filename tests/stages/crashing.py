"""Runs a stage whose model crashes the process at certain questions, as the runtime would.

`python -m tests.stages.crashing STAGE FOLDER TEXT...` aborts the process whenever a question that
holds one of the texts is asked, and prints one JSON object: how many processes it took, what the
rows are, and what they are when nothing crashes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact
from engine.backends import Completion, Request, Sampling
from engine.plan.stage import Machine
from tests.stages.running import Bench
from tests.stages.shard_cases import CASES, Fake, prompts, set_up

MOST_LIVES = 60


def crash_at(texts: Sequence[str]) -> None:
    """Let the fake model crash at questions that hold one of the texts."""
    answer = Fake.generate

    def generate(self: Fake, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        asked = [turn.text for request in requests for turn in request.turns]
        if any(text in one.split() for one in asked for text in texts):
            os.abort()
        return answer(self, requests, sampling)

    Fake.generate = generate  # type: ignore[method-assign]


def lives(name: str, folder: Path, texts: Sequence[str]) -> tuple[int, Path]:
    """Run a case until a process ends well; return how many crashed, and its rows."""
    case = CASES[name]
    inputs = case.inputs(folder)
    for number in range(MOST_LIVES):
        child = os.fork()
        if child == 0:
            crash_at(texts)
            bench = Bench(folder, prompts=prompts(), num_runs=number)
            bench = replace(bench, machine=Machine(has_crashed=number > 0))
            found = bench.run(case.stage, case.params, inputs, scratch="s")
            (folder / "rows.json").write_text(json.dumps(rows(found)))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return number, folder / "rows.json"
        assert code == -signal.SIGABRT
    raise AssertionError(f"still crashing after {MOST_LIVES} processes")


def rows(found: Artifact) -> dict[str, Any]:
    """Return all rows of an artifact, by row set."""
    names = {path.name.rpartition("-")[0] for path in found.path.glob("*.jsonl")}
    return {name: list(found.rows(name)) for name in sorted(names)}


if __name__ == "__main__":
    set_up(16)
    stage, home, *bad = sys.argv[1:]
    found = {}
    for label, texts in (("calm", []), ("crashing", bad)):
        place = Path(home) / label
        place.mkdir()
        num_crashes, path = lives(stage, place, texts)
        found[label] = {"num_crashes": num_crashes, "rows": json.loads(path.read_text())}
    print(json.dumps(found))
