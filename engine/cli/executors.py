"""What runs the nodes of a plan: this machine, a Ray cluster, or a cluster that gets a job file."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import __version__
from engine.diagnostics import Diagnostic, ExitCode, RequestError
from engine.runtime.machine import Settings

if TYPE_CHECKING:
    from engine.cli.outlays import Outlay
    from engine.cli.planning import Planned
    from engine.runtime.child import Launcher
    from engine.runtime.jobfiles import JobFile
    from engine.runtime.local import Begin
    from engine.runtime.outlook import View

JOB_FILES = ("slurm", "skypilot")
CORES_PER_GPU = 8
MARGIN = 1.5  # more than the forecast; too little costs a requeue
_SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def launcher(
    settings: Settings,
    worker: Sequence[str],
    folder: Path,
    *,
    has_work: bool,
    begin: Begin | None = None,
) -> Launcher:
    """Return what starts the processes of a run; a cluster is asked only if there is work to do.

    `begin` starts processes of this machine in another way than as an interpreter.
    """
    if settings.executor == "ray":
        from engine.runtime.ray import RayLauncher

        # -P: the folder where a machine of the cluster starts may hold any `engine`.
        words = worker if worker[:1] == ("-P",) else ("-P", *worker)
        found = RayLauncher(settings, words)
        if has_work:
            found.connect()
        return found
    from engine.runtime.local import LocalLauncher, start

    return LocalLauncher(settings, worker, folder, begin or start)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of job files."""
    group = parser.add_argument_group("job files (--executor slurm, skypilot)")
    group.add_argument("-o", dest="output", metavar="FILE", help="where the job file goes [stdout]")
    group.add_argument("--on", metavar="DEVICE", help="the GPU to ask for, such as h100")
    group.add_argument("--gpus", type=int, default=1, metavar="N", help="how many of them [1]")
    parser.set_defaults(price=None)


def refuse_stray_flags(args: argparse.Namespace, settings: Settings) -> None:
    """Raise RequestError for flags of job files in a run that writes none."""
    if settings.executor in JOB_FILES:
        return
    for flag, is_given in (("-o", args.output), ("--on", args.on), ("--gpus", args.gpus != 1)):
        if is_given:
            hint = "with `--executor slurm` or `--executor skypilot`"
            raise RequestError(Diagnostic("wrong-flag", f"`{flag}` is of job files", hint=hint))


def write_job_file(args: argparse.Namespace, settings: Settings, planned: Planned) -> int:
    """Write the job file that a run was asked for instead of running; return the exit code."""
    from engine.runtime import jobfiles

    job = _job_file(args, settings, planned)
    text = jobfiles.sbatch(job) if settings.executor == "slurm" else jobfiles.skypilot(job)
    if args.output is None:
        print(text, end="")
    else:
        try:
            Path(args.output).write_text(text, encoding="utf-8")
        except OSError as error:
            message = f"`{args.output}` cannot be written: {error.strerror}"
            raise RequestError(Diagnostic("cannot-write", message)) from error
        print(f"wrote {args.output}", file=sys.stderr)
    return int(ExitCode.DONE)


def _job_file(args: argparse.Namespace, settings: Settings, planned: Planned) -> JobFile:
    from engine.cli import outlays
    from engine.runtime import opening, outlook
    from engine.runtime.jobfiles import JobFile

    store = opening.open_store(settings.store, settings.remote)
    view = outlook.look(planned.plan, store)
    fleet = outlays.fleet_of(args)
    whole = outlays.outlay(planned, view, store, fleet)
    needs_gpu = settings.device != "cpu" and any(
        item.node.needs.accelerator for item in view.nodes if item.state != outlook.CACHED
    )
    num_gpus = args.gpus if needs_gpu else 0
    return JobFile(
        name=planned.plan.recipe,
        source=shlex.join(["adapt", *sys.argv[1:]]),
        command=_command(args, settings),
        folder=str(Path.cwd()),
        threads=settings.threads or CORES_PER_GPU * max(1, num_gpus),
        num_gpus=num_gpus,
        gpu_kind=fleet.device.name if fleet is not None and num_gpus else None,
        memory_gb=_memory_gb(view),
        disk_gb=max(100.0, 2 * whole.sums["disk_gb"]) if "disk_gb" in whole.sums else None,
        hours=_hours(whole),
        secrets=[name for name in _SECRETS if os.environ.get(name)],
        version=__version__,
    )


def _hours(whole: Outlay) -> float | None:
    """Return the time to ask for; None if that of any node is not known."""
    if whole.num_unknown.get("wall_h"):
        return None
    found = whole.sums.get("wall_side_by_side_h", whole.sums.get("wall_h"))
    return MARGIN * found if found else None


def _memory_gb(view: View) -> float | None:
    """Return the memory of the two largest nodes side by side, if it was ever measured."""
    peaks = sorted(item.estimate.peak_memory_gb for item in view.nodes if item.estimate)
    return math.ceil(MARGIN * sum(peaks[-2:])) if peaks else None


def _command(args: argparse.Namespace, settings: Settings) -> list[str]:
    """Return the command of the job: this one, to be run where the job is."""
    is_remote = settings.executor == "skypilot"
    words = ["adapt"] if is_remote else _program()
    words += ["run", args.recipe]
    for change in args.overrides:
        words += ["--set", change]
    words += ["--store", _store(settings), "--executor", "local"]
    for name in ("only", "device", "retries"):
        if getattr(args, name, None):
            words += [f"--{name}", str(getattr(args, name))]
    if args.frozen:
        words.append("--frozen")
    if args.offline is not None:
        words.append("--offline" if args.offline else "--online")
    return words


def _program() -> list[str]:
    """Return the words that start this very program where the same disk is seen."""
    beside = Path(sys.executable).with_name("adapt")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "engine.cli"]


def _store(settings: Settings) -> str:
    """Return the store by a name that holds on another machine."""
    folder = settings.store
    if settings.remote or folder.is_absolute():
        return settings.remote or str(folder)
    if settings.executor == "skypilot":
        message = (
            f"the store '{folder}' is a folder of this machine: a spot machine would begin anew"
        )
        hint = "`--store s3://BUCKET/FOLDER`, or the absolute path of a volume that the job mounts"
        raise RequestError(Diagnostic("store-not-shared", message, hint=hint))
    return str(folder.resolve())
