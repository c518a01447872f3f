"""Kills a stage at random moments, runs it again until it is done, and tells what came of it.

`python -m tests.stages.killing STAGE FOLDER SEED` prints one JSON object. Every attempt is a
process of its own, or two that are parts, and ends by SIGKILL. In the first half of the attempts
nothing else happens; in the second half a random file of the scratch is damaged between two of
them as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact
from engine.backends import Backend, Completion, Request, Sampling
from engine.filters import decontaminate
from engine.plan.stage import Part, Stage
from engine.stages import _filtering, _intake, collect, curate, evaluate, generate
from engine.stages import filter as filter_stage
from tests.filters.building import artifact
from tests.sources.building import picture
from tests.stages.running import Bench
from tests.stages.talking import (
    a_question,
    a_task,
    dialogue_turns,
    prompt_texts,
    rows_artifact,
    said,
)

NUM_ROWS, SHARD = 48, 4
NUM_KILLS = 6
ANSWER_S = 0.002
Inputs = Mapping[str, Mapping[str, Artifact]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams:
    """The fake backend has no settings."""


class Fake:
    """Answers by a digest of what it is asked, and notes every question in a file."""

    notes = Path()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        asked = " / ".join(turn.text for turn in request.turns)
        with self.notes.open("a") as notes:
            notes.write(json.dumps(asked) + "\n")
        time.sleep(ANSWER_S)
        chance = int(hashlib.sha256(asked.encode()).hexdigest(), 16)
        if request.opens == "assistant":
            return said(("Yes", "No", "42", "")[chance % 4])
        return said(
            *dialogue_turns(
                "Answer with a precise response.\nWhat?",
                f"a cat {chance % 7}",
                "Answer with an informative response.\nWhat?",
                "It has whiskers." if chance % 5 else "",
            )
        )

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Case:
    """A stage on small data, with shards of a few rows."""

    stage: Stage
    params: Mapping[str, Any]
    inputs: Callable[[Path], Inputs]


def _pairs(folder: Path) -> Artifact:
    shown = [picture(number % 30) for number in range(NUM_ROWS)]
    return artifact(folder / "pairs", [(f"p{n}", p, f"Caption {n}.") for n, p in enumerate(shown)])


def _curate_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    shown = [(f"q{number}", picture(number * 7), "x") for number in range(12)]
    benchmark = artifact(folder / "benchmark", shown)
    return {"pairs": {"p": pairs}, "images": {"p": pairs}, "benchmarks": {"b": benchmark}}


def _task_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    tasks = [a_task(pair, number) for number, pair in enumerate(pairs.records("rows"))]
    return {"tasks": {"t": rows_artifact(folder / "tasks", tasks=tasks)}, "images": {"p": pairs}}


def _pair_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    rows = rows_artifact(folder / "curated", pairs=list(pairs.records("rows")))
    return {"pairs": {"p": rows}, "images": {"p": pairs}}


def _question_inputs(folder: Path) -> Inputs:
    pairs = _pairs(folder)
    questions = [
        a_question(pair.images[0], f"How many in {number}?", "4", name=pair.meta.source_id)
        for number, pair in enumerate(pairs.records("rows"))
    ]
    rows = rows_artifact(folder / "questions", rows=questions)
    return {"items": {"i": rows}, "images": {"p": pairs}}


def _no_inputs(folder: Path) -> Inputs:
    (folder / "pictures").mkdir()
    for number in range(NUM_ROWS):
        content = b"broken" if number % 9 == 4 else picture(number % 30)
        (folder / f"pictures/{number:02d}.png").write_bytes(content)
        (folder / f"pictures/{number:02d}.txt").write_text(f"Caption {number}.")
    return {}


MODEL = {"model": "m", "backend": {"use": "vllm"}}
CASES = {
    "collect": Case(
        collect.STAGE, {"source": {"use": "image_folder", "path": "pictures"}}, _no_inputs
    ),
    "curate": Case(
        curate.STAGE,
        {
            "filters": [
                {"use": "image_size", "min_side_px": 8},
                {"use": "near_duplicate", "max_distance_bits": 4},
                {"use": "decontaminate", "max_distance_bits": 0},
            ]
        },
        _curate_inputs,
    ),
    "generate": Case(
        generate.STAGE,
        {
            "generator": MODEL,
            "prompt": "synthesize@1",
            "max_new_tokens": 8,
            "temperature": 0.7,
            "answer_temperature": 0.0,
            "row_set": "pairs",
        },
        _pair_inputs,
    ),
    "filter": Case(
        filter_stage.STAGE,
        {
            "filters": [
                {"use": "near_duplicate"},
                {"use": "consistency", "judge": MODEL},
                {"use": "near_duplicate", "max_distance_bits": 4},
            ]
        },
        _task_inputs,
    ),
    "evaluate.answers": Case(
        evaluate.ANSWERS,
        {
            "model": MODEL,
            "benchmark": "b",
            "prompt": "bare@1",
            "caption_prompt": "caption@1",
            "max_new_tokens": 8,
            "max_items": None,
            "row_set": "rows",
        },
        _question_inputs,
    ),
}


@dataclass
class Killer:
    """Runs a case in processes of its own, some of which it kills."""

    case: Case
    folder: Path
    inputs: Inputs
    num_attempts: int = 0

    def start(self, scratch: str, part: Part | None = None) -> int:
        """Start an attempt; return its process id."""
        self.num_attempts += 1
        child = os.fork()
        if child == 0:
            os._exit(self._attempt(scratch, part))
        return child

    def _attempt(self, scratch: str, part: Part | None) -> int:
        prompts = prompt_texts() | {"consistency@1": "{{ instruction }}"}
        bench = Bench(self.folder, prompts=prompts, num_runs=self.num_attempts)
        Fake.notes = self.folder / f"{scratch}.notes"
        stage, params = self.case.stage, self.case.params
        if part is not None:
            bench.run_part(stage, params, self.inputs, part=part, scratch=scratch)
            return 0
        found = bench.run(stage, params, self.inputs, scratch=scratch)
        (self.folder / f"{scratch}.digest").write_text(digest(found))
        return 0

    def finish(self, scratch: str, *parts: Part) -> str:
        """Let a case come to its end undisturbed; return the digest of its artifact."""
        for child in [self.start(scratch, part) for part in parts]:
            _must_end_well(child)
        _must_end_well(self.start(scratch))
        return (self.folder / f"{scratch}.digest").read_text()

    def kill_one(self, scratch: str, rng: random.Random, *parts: Part) -> None:
        """Start processes and kill them all, at some moment after up to two more shards."""
        enough = len(self.kept(scratch)) + rng.randrange(3)
        children = [self.start(scratch, part) for part in parts or [None]]
        while len(self.kept(scratch)) < enough and not _has_ended(children[0]):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.01))
        for child in children:
            os.kill(child, signal.SIGKILL)  # one that has ended by itself still waits for us
        for child in children:
            os.waitpid(child, 0)

    def kept(self, scratch: str) -> dict[str, int]:
        """Return the finished shards by their path, and which file each of them is."""
        found: dict[str, int] = {}
        for folder, _, names in os.walk(self.folder / ".bench" / scratch):  # minds no race
            is_span = "span" in folder and not folder.endswith(".part")
            for path in (Path(folder, name) for name in names):
                if path.name == "span.json" if is_span else path.name[0].isdigit():
                    with suppress(FileNotFoundError):
                        found[str(path)] = path.stat().st_ino
        return {path: inode for path, inode in found.items() if not path.endswith(".tmp")}

    def notes(self, scratch: str) -> list[str]:
        """Return what was asked, one entry per question."""
        path = self.folder / f"{scratch}.notes"
        return path.read_text().splitlines() if path.exists() else []


def _has_ended(child: int) -> bool:
    """Tell whether a process has ended, without burying it."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _must_end_well(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def digest(found: Artifact) -> str:
    """Return one digest of all files of an artifact and its counts."""
    whole = hashlib.sha256(json.dumps(found.manifest.counts, sort_keys=True).encode())
    for path in sorted(found.path.iterdir()):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def damage(rng: random.Random, folder: Path) -> None:
    """Cut a file somewhere, or turn a bit of it round."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    if not files:
        return
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        content[place] ^= 1 << rng.randrange(8)
    else:
        del content[place:]
    path.write_bytes(content)


def main(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Run a case in peace, under kills, and under kills and damage."""
    rng = random.Random(seed)
    case = CASES[name]
    killer = Killer(case, folder, case.inputs(folder))
    halves = (Part(0, 2), Part(1, 2))
    expected = killer.finish("calm")
    num_redone, num_seen = 0, []
    for _ in range(NUM_KILLS):
        before = killer.kept("killed")
        killer.kill_one("killed", rng, *rng.choice([(), halves]))
        num_redone += _num_changed(before, killer.kept("killed"))
        num_seen.append(len(killer.kept("killed")))
    before = killer.kept("killed")
    killed = killer.finish("killed", *halves)
    num_redone += _num_changed(before, killer.kept("killed"))
    for _ in range(NUM_KILLS):
        killer.kill_one("damaged", rng, *rng.choice([(), halves]))
        damage(rng, folder / ".bench/damaged")
    return {
        "killed_is_same": killed == expected,
        "damaged_is_same": killer.finish("damaged", *halves) == expected,
        "num_shards": len(killer.kept("calm")),
        "num_shards_after_kills": num_seen,
        "num_redone": num_redone,
        "num_asked_again": len(killer.notes("killed")) - len(killer.notes("calm")),
    }


def _num_changed(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    return sum(after.get(name) != inode for name, inode in before.items())


def set_up() -> None:
    """Cut everything into shards of a few rows, and put the fake in the place of a backend."""
    import imagehash  # noqa: F401  # loaded once, not by every attempt
    import pyarrow.ipc  # noqa: F401
    from PIL import Image

    Image.init()
    _intake.SPAN_ROWS = _filtering.SHARD_ROWS = decontaminate.SHARD_IMAGES = SHARD
    generate.SHARD_PAIRS = evaluate.SHARD_ITEMS = SHARD
    fake = types.ModuleType("fake")
    fake.PLUGIN = Backend(1, NoParams, lambda files, params, machine: Fake())  # type: ignore[attr-defined]
    sys.modules["engine.backends.vllm"] = fake


if __name__ == "__main__":
    set_up()
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
