"""Trainings in processes that can be killed: one server imports torch once and forks for each.

`python -m tests.training.lives` reads a case as JSON per line. The process of a case reports its
steps on standard output, then the server reports how it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """One training: what `fit` gets, and what ends it."""

    base: str
    folder: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_lora: bool = False
    num_rows: int = 12
    num_texts: int = 0  # rows without an image
    num_held_out: int = 0
    machine: Mapping[str, Any] = field(default_factory=dict)
    memory_mb: int | None = None  # that may be taken beyond what the process holds at its start
    file_limit: int | None = None  # the kernel kills the process in the write that goes beyond it


@dataclass
class Life:
    """A running case."""

    pid: int
    _lines: Iterator[str]
    steps: list[int] = field(default_factory=list)
    exit_code: int | None = None

    def reach(self, step: int) -> None:
        """Wait until a step is done, or the end."""
        while self.exit_code is None and (not self.steps or self.steps[-1] < step):
            self._read()

    def end(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        while self.exit_code is None:
            self._read()
        return self.exit_code

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _read(self) -> None:
        kind, value = next(self._lines).split()
        if kind == "step":
            self.steps.append(int(value))
        else:
            self.exit_code = int(value)


class Server:
    """Starts cases, one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines = iter(process.stdout or ())

    def start(self, case: Case) -> Life:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps(asdict(case)) + "\n")
        stdin.flush()
        return Life(int(next(self._lines).split()[1]), self._lines)

    def finish(self, case: Case) -> Life:
        """Run a case to its end, which must be a good one."""
        life = self.start(case)
        assert life.end() == 0, (Path(case.folder) / "error").read_text()
        return life

    def killed(self, case: Case, random: random.Random, last_step: int) -> int:
        """Kill a case at some moment after some step; return its exit code."""
        life = self.start(case)
        life.reach(random.randint(1, last_step))
        time.sleep(random.uniform(0, 0.03))
        life.signal(signal.SIGKILL)
        return life.end()


@contextmanager
def server() -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.lives"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    try:
        yield Server(process)
    finally:
        process.communicate()


def digests(folder: str) -> dict[str, str]:
    """Return the digest of every file that a training has written."""
    out = Path(folder) / "out"
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def main() -> None:
    from engine.training import fit, loop  # noqa: F401  # once for all
    from tests.models import tiny  # noqa: F401

    _heat()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _live(Case(**json.loads(line)))
        print(f"pid {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


def _heat() -> None:
    """Import what a training imports, so that each one starts at once."""
    import peft  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    from transformers import (  # noqa: F401
        AutoConfig,
        AutoModelForImageTextToText,
        AutoProcessor,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
    )

    torch.set_num_threads(1)


def _live(case: Case) -> None:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _train(case)
        code = 0
    except BaseException as error:
        stopped = type(error).__name__ == "Stopped"
        code = 75 if stopped else 1
        (Path(case.folder) / "error").write_text("".join(traceback.format_exception(error)))
    finally:
        os._exit(code)


def _train(case: Case) -> None:
    from engine.artifacts import Outputs
    from engine.plan.stage import Machine, Tools
    from engine.runtime.worker import StopSignal
    from engine.training.fit import fit
    from tests.training.rows import PICTURES, color_rows
    from tests.training.test_loop import LORA, job

    if case.file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_limit, case.file_limit))
    if case.memory_mb is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + case.memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    folder = Path(case.folder)
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    wanted = job(Path(case.base), **case.settings)
    tools = Tools(
        seed=1,
        scratch=folder / "scratch",
        prompts={},
        machine=Machine(**case.machine),
        locate=Path,
        locate_model=str,
        log=lambda _: None,
        progress=lambda done, *_: print(f"step {done}", flush=True),
        stopping=StopSignal().has_come,
    )
    outputs = Outputs(out)
    chosen = replace(wanted, lora=LORA) if case.is_lora else wanted
    rows = [*color_rows(case.num_rows), *map(_text_row, range(case.num_texts))]
    held_out = color_rows(case.num_held_out)
    fit(rows, PICTURES.__getitem__, chosen, outputs, tools, held_out)
    outputs.write_json("counts.json", outputs.counts())


def _text_row(number: int) -> Any:
    from engine.records import assistant, user
    from tests.training.rows import chat

    return chat(user(f"Count to {number}?"), assistant("one, two" * number), name=f"text {number}")


if __name__ == "__main__":
    main()
