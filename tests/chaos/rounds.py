"""One round: a store in some state, disturbed runs, then the same command until it is done."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine.runtime.store import Store
from tests.chaos import miniature, processes
from tests.chaos.disk import Disk
from tests.chaos.miniature import Reference

MAX_RERUNS = 4
RUN_TIMEOUT_S = 600.0
EXPECTED = {0, 1, 3}  # of a run that nobody killed: done, refused, a stage failed


@dataclass
class Round:
    """What a trouble works on, and what is learnt on the way."""

    reference: Reference
    folder: Path
    mark: str
    rng: Random
    disk: Disk | None = None  # a small one of its own, if the round wants it full
    done: list[str] = field(default_factory=list)  # what was done to it, for people
    problems: list[str] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)  # nodes that may be built again
    more: dict[str, str] = field(default_factory=dict)  # environment
    num_runs: int = 0
    _seen: dict[str, object] = field(default_factory=dict)  # node -> when it was published

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command."""
        self.num_runs += 1
        with self.output(self.num_runs).open("wb") as output:
            return subprocess.Popen(
                miniature.command(self.reference.recipe, self.folder),
                cwd=self.folder,
                env=miniature.environment(self.folder, self.mark, self.more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self, number: int) -> Path:
        """Return where the output of the n-th run is."""
        return self.folder.with_name(f"{self.folder.name}-output-{number}.txt")  # not on its disk

    def told(self) -> str:
        """Return what the last run said."""
        return self.output(self.num_runs).read_text(encoding="utf-8", errors="replace")

    def end(self, run: subprocess.Popen[bytes], expected: Sequence[int] = ()) -> int:
        """Wait for a run and note an end that must not be."""
        try:
            code = run.wait(RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.problem(f"run {self.num_runs} hung for {RUN_TIMEOUT_S:.0f} s")
            for process in processes.marked(self.mark):
                process.kill()
            return run.wait()
        if code not in {*EXPECTED, *expected}:
            self.problem(f"run {self.num_runs} ended with {code}")
        # Without a file of ours in it, it is Python's own, interrupted before it read a line of us.
        if "Traceback" in self.told() and "engine/" in self.told().partition("Traceback")[2]:
            self.problem(f"run {self.num_runs} shows a traceback")
        return code

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def missing(self) -> list[str]:
        """Return the nodes that are still to do."""
        there = miniature.published(self.store, self.reference.plan)
        return [node.id for node in self.reference.plan.nodes if node.id not in there]

    def seconds_left(self) -> float:
        """Return about how long an undisturbed run would take now."""
        taken = self.reference.seconds
        return 0.5 + self._share() * sum(taken[name] for name in self.missing())

    def _share(self) -> float:
        return self.reference.wall_s / sum(self.reference.seconds.values())

    def missing_bytes(self) -> int:
        """Return how much an undisturbed run would still write, artifacts only."""
        manifests = [self.reference.artifact(name).manifest for name in self.missing()]
        return sum(entry.size_bytes for manifest in manifests for entry in manifest.files)

    def excuse(self, key: str) -> None:
        """Let the node of a damaged artifact be built again: it alone, for its content is known."""
        self.excused |= {node.id for node in self.reference.plan.nodes if node.key == key}

    def look_back(self) -> None:
        """Note what is finished by now: none of it may be done again."""
        self._seen |= {
            name: identity
            for name, identity in miniature.published(self.store, self.reference.plan).items()
            if name not in self.excused
        }

    def finish(self) -> list[int]:
        """Run the command until it is done, and once more; return the exit codes until then."""
        codes: list[int] = []
        while not codes or (codes[-1] != 0 and len(codes) < MAX_RERUNS):
            codes.append(self.end(self.start()))
        if codes[-1] != 0:
            self.problem(f"not done after {len(codes)} reruns")
        elif self.end(self.start()) != 0 or "every stage is cached" not in self.told():
            self.problem("the run after the last finds something to do")
        return codes

    def compare(self) -> None:
        """Note what differs from the undisturbed run, and what was done twice."""
        self.problems += self.reference.differences(self.store)
        after = miniature.published(self.store, self.reference.plan)
        for name, identity in self._seen.items():
            if name not in self.excused and after.get(name) != identity:
                self.problem(f"`{name}` was done twice")


@dataclass(frozen=True)
class Moment:
    """When a trouble comes: some seconds after something new is seen in the store."""

    place: str  # a folder of the store, or "" for the start of the run
    after_s: float

    def __str__(self) -> str:
        return f"{self.after_s:.3f} s after {self.place or 'the start'}"


PLACES = ("tmp", "scratch", "artifacts/*", "locks", "realised")


def choose_moment(rng: Random, seconds_left: float) -> Moment:
    """Choose any time of the run, or one close to where files are made and named."""
    if rng.random() < 0.5:
        return Moment("", rng.uniform(0.0, seconds_left))
    return Moment(rng.choice(PLACES), rng.choice([0.0, rng.uniform(0, 0.02), rng.uniform(0, 1)]))


def wait_for(moment: Moment, store: Path, run: subprocess.Popen[bytes]) -> bool:
    """Wait for a moment; tell whether the run was still going on then."""
    if moment.place:
        seen = _entries(store, moment.place)
        while run.poll() is None and _entries(store, moment.place) <= seen:
            time.sleep(0.004)
    end = time.monotonic() + moment.after_s
    while run.poll() is None and time.monotonic() < end:
        time.sleep(min(0.01, max(0.0, end - time.monotonic())))
    return run.poll() is None


def _entries(store: Path, place: str) -> set[str]:
    return {str(path) for path in store.glob(f"{place}/*")}
