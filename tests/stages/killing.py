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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts import Artifact
from engine.plan.stage import Part
from tests.stages.running import Bench
from tests.stages.shard_cases import CASES, Case, Fake, Inputs, prompts, set_up

SHARD = 4
NUM_KILLS = 6


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
        bench = Bench(self.folder, prompts=prompts(), num_runs=self.num_attempts)
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


if __name__ == "__main__":
    set_up(SHARD)
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
