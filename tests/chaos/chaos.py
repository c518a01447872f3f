"""Many rounds of one question: whatever happened to a run, does the next one end as if nothing had?

    python -m tests.chaos.chaos --rounds 200 --seed 1
    python -m tests.chaos.chaos --seed 1 --only 17          the 17th round again

Each round takes a store in some state of completion, disturbs runs of a small recipe for real (see
`troubles.py`), then gives the same command until it ends well. Every artifact must then be that of
an undisturbed run, byte for byte, and nothing that was finished may have been built again.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos import miniature
from tests.chaos.disk import Disk
from tests.chaos.miniature import ROOT, Reference
from tests.chaos.rounds import Round
from tests.chaos.troubles import TROUBLES, impossible

ALONE = "ADAPT_CHAOS_ALONE"  # set in the copy of this process that has its own mounts
_DISK_BYTES = 1 << 30


@dataclass(frozen=True)
class Lab:
    """What all rounds share."""

    reference: Reference
    folder: Path
    kept: Path  # where a round that went wrong is left
    seed: int
    kinds: Sequence[str]
    in_turn: bool = False  # every kind once, then again, instead of by weight
    max_to_do: int | None = None  # nodes that may be missing at the start of a round


@dataclass(frozen=True)
class Result:
    """How a round went."""

    number: int
    kind: str
    wall_s: float
    reruns: tuple[int, ...]  # exit codes
    done: tuple[str, ...]
    problems: tuple[str, ...]

    def line(self, total: int) -> str:
        """Return the one line about it."""
        verdict = "ok" if not self.problems else "WRONG"
        codes = ",".join(map(str, self.reruns))
        what = "; ".join(self.done)
        return (
            f"{self.number:3}/{total} {verdict:5} {self.wall_s:5.1f} s  {self.kind:9} "
            f"reruns {codes}  {what}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the rounds; return 1 if any went wrong."""
    args = _parser().parse_args(arguments)
    if os.environ.get(ALONE) is None:
        _go_alone()
    folder = Path(tempfile.mkdtemp(prefix="adapt-chaos-", dir=args.folder or _fast_folder()))
    try:
        return _play_all(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _play_all(args: argparse.Namespace, folder: Path) -> int:
    start = time.monotonic()
    cannot = impossible()
    for kind, reason in cannot.items():
        print(f"left out: {kind}: {reason}", flush=True)
    kinds = [kind for kind in args.kinds or TROUBLES if kind not in cannot]
    reference = miniature.make(args.recipe.resolve(), folder / "reference")
    print(f"undisturbed: {len(reference.plan.nodes)} nodes, {reference.wall_s:.1f} s", flush=True)
    kept = args.keep.resolve()
    lab = Lab(reference, folder, kept, args.seed, kinds, args.in_turn, args.max_to_do)
    numbers = args.only or range(1, args.rounds + 1)
    results = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for result in pool.map(lambda number: play(lab, number), numbers):
            results.append(result)
            print(result.line(args.rounds), flush=True)
            for problem in result.problems:
                print(f"      {problem}", flush=True)
            if result.problems:
                print(f"      {_replay(args, result)}; kept: {_kept(lab, result.number)}")
    print(_summary(results, time.monotonic() - start), flush=True)
    return 1 if any(result.problems for result in results) else 0


def play(lab: Lab, number: int) -> Result:
    """Play one round; its random choices depend on the seed and its number alone."""
    rng = Random(f"{lab.seed}/{number}")
    weights = [TROUBLES[kind][0] for kind in lab.kinds]
    kind = rng.choices(lab.kinds, weights)[0]
    if lab.in_turn:
        kind = lab.kinds[number % len(lab.kinds)]
    folder = lab.folder / f"round-{number}"
    folder.mkdir()
    start = time.monotonic()
    with ExitStack() as stack:
        disk = stack.enter_context(Disk(folder, _DISK_BYTES)) if kind == "full-disk" else None
        round_ = Round(lab.reference, folder, str(folder), rng, disk)
        try:
            reruns = _disturb(round_, kind, lab.max_to_do)
        except Exception as error:  # one round must not cost the others
            reruns = []
            round_.problem(f"the round itself failed: {type(error).__name__}: {error}")
        if round_.problems:
            _keep(round_, _kept(lab, number))
    shutil.rmtree(folder, ignore_errors=True)
    took_s = time.monotonic() - start
    return Result(number, kind, took_s, tuple(reruns), tuple(round_.done), tuple(round_.problems))


def _disturb(round_: Round, kind: str, max_to_do: int | None) -> list[int]:
    """Let a trouble come over a round a few times; return the exit codes of the reruns."""
    rng = round_.rng
    left = miniature.copy_in_some_state(round_.reference, round_.folder, rng, max_to_do)
    round_.done.append(f"{len(left)} nodes to do")
    round_.look_back()
    for _ in range(rng.choice([1, 1, 2, 3])):
        TROUBLES[kind][1](round_)
        round_.look_back()
    reruns = round_.finish()
    round_.compare()
    return reruns


def _summary(results: Sequence[Result], wall_s: float) -> str:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    lines = [
        f"\n{len(results)} rounds in {wall_s:.0f} s, with {cpu_s:.0f} s of CPU",
        f"  {'kind':10} rounds  wrong  reruns  s",
    ]
    for kind in sorted({result.kind for result in results}):
        of_kind = [result for result in results if result.kind == kind]
        wrong = sum(bool(result.problems) for result in of_kind)
        reruns = sum(len(result.reruns) for result in of_kind) / len(of_kind)
        mean_s = sum(result.wall_s for result in of_kind) / len(of_kind)
        lines.append(f"  {kind:10} {len(of_kind):6} {wrong:6} {reruns:7.2f}  {mean_s:.1f}")
    told = Counter(problem for result in results for problem in result.problems)
    lines += [f"  {number} x {problem}" for problem, number in told.most_common(20)]
    return "\n".join(lines)


def _keep(round_: Round, kept: Path) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(round_.folder, kept)
    for number in range(1, round_.num_runs + 1):
        shutil.copy(round_.output(number), kept)


def _kept(lab: Lab, number: int) -> Path:
    return lab.kept / f"seed-{lab.seed}-round-{number}"


def _replay(args: argparse.Namespace, result: Result) -> str:
    words = ["--recipe", os.path.relpath(args.recipe, ROOT), "--seed", str(args.seed)]
    words += ["--kinds", *args.kinds] if args.kinds else []
    words += ["--in-turn"] if args.in_turn else []
    words += ["--max-to-do", str(args.max_to_do)] if args.max_to_do else []
    return f"again: python -m tests.chaos.chaos {' '.join(words)} --only {result.number}"


def _fast_folder() -> str | None:
    shared = Path("/dev/shm")
    return str(shared) if os.access(shared, os.W_OK) else None


def _go_alone() -> None:
    """Become a copy of this process whose mounts nobody else sees and that vanish with it."""
    for words in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *words]
        if shutil.which("unshare") and _works([*command, "mount", "-t", "tmpfs", "x", "/mnt"]):
            again = [sys.executable, "-m", "tests.chaos.chaos", *sys.argv[1:]]
            os.execvpe("unshare", [*command, *again], {**os.environ, ALONE: "1"})


def _works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _numbers(text: str) -> Iterator[int]:
    return (int(word) for word in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=lambda text: list(_numbers(text)), help="these rounds: 3,17")
    parser.add_argument("--kinds", nargs="+", choices=TROUBLES, help="only these troubles")
    parser.add_argument("--in-turn", action="store_true", help="one kind after the other")
    parser.add_argument("--max-to-do", type=int, metavar="N", help="at most N nodes are missing")
    parser.add_argument("--jobs", type=int, default=2, help="rounds side by side [2]")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_name("miniature.yaml"))
    parser.add_argument("--folder", type=Path, help="where rounds are played [memory]")
    parser.add_argument("--keep", type=Path, default=ROOT / ".adapt" / "chaos")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
