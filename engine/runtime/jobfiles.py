"""Job files for clusters that are not Ray's: what to ask for, and the command. They run nothing.

Both restart the same command until it has ended: finished work is kept in the store, so a machine
that is taken away costs minutes. Secrets are named, never written.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

WARNING_S = 120  # between the signal and the end; a stop takes at most ten seconds
RESUMABLE = 75
GRAIN_MIN = 30  # times are asked for in steps of this


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """What a job asks for; None where nothing is known, so that the cluster's default holds."""

    name: str
    source: str  # the command that writes this file
    command: Sequence[str]
    folder: str  # where the command starts
    threads: int
    num_gpus: int = 0
    gpu_kind: str | None = None  # of `adapt plan --on`
    memory_gb: float | None = None
    disk_gb: float | None = None
    hours: float | None = None
    secrets: Sequence[str] = ()  # names of variables of the environment
    version: str = ""


_SKY_KINDS = {
    "h200": "H200",
    "h100": "H100",
    "a100": "A100-80GB",
    "a100-40gb": "A100",
    "l40s": "L40S",
    "a10": "A10",
    "l4": "L4",
    "rtx4090": "RTX4090",
}

_SBATCH_BODY = """\
set -u
{checks}cd {folder} || exit 1

{command} &
child=$!
stopped=
# Slurm tells this shell {warning} s before the time is over; adapt then ends with {code}.
trap 'stopped=1; kill -TERM "$child"' TERM
wait "$child"
code=$?
if [ -n "$stopped" ]; then  # the signal ended the first wait, not the command
  wait "$child"
  code=$?
fi
if [ "$code" = {code} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def sbatch(job: JobFile) -> str:
    """Return the batch script for Slurm."""
    gpus = f"{job.gpu_kind}:{job.num_gpus}" if job.gpu_kind else str(job.num_gpus)
    asked = [
        f"--job-name=adapt-{job.name}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={job.threads}",
        f"--gpus-per-node={gpus}" if job.num_gpus else None,
        f"--mem={math.ceil(job.memory_gb)}G" if job.memory_gb else None,
        f"--time={_clock(job.hours)}" if job.hours else None,
        "--requeue",
        f"--signal=B:TERM@{WARNING_S}",
        "--open-mode=append",
        f"--output=adapt-{job.name}-%j.out",
    ]
    checks = "".join(f': "${{{name}:?export it, then submit again}}"\n' for name in job.secrets)
    head = f"#!/bin/bash\n# Written by: {job.source}\n# Submit it with: sbatch FILE\n"
    if not job.hours:
        head += "# Nothing tells how long it takes: the partition's time limit holds.\n"
    body = _SBATCH_BODY.format(
        checks=checks,
        folder=shlex.quote(job.folder),
        command=shlex.join(job.command),
        warning=WARNING_S,
        code=RESUMABLE,
    )
    return head + "".join(f"#SBATCH {line}\n" for line in asked if line) + "\n" + body


def skypilot(job: JobFile) -> str:
    """Return the task for SkyPilot: a managed job on spot machines."""
    kind = _SKY_KINDS.get(job.gpu_kind or "")
    lines = [
        f"# Written by: {job.source}",
        f"# Launch it with: {shlex.join(_launch(job))}",
        f"name: adapt-{job.name}",
        f"workdir: {_quoted(job.folder)}",
        "resources:",
        f"  cpus: {job.threads}+",
    ]
    if job.memory_gb:
        lines.append(f"  memory: {math.ceil(job.memory_gb)}+")
    if kind:
        lines.append(f"  accelerators: {kind}:{job.num_gpus}")
    elif job.num_gpus:
        kinds = ", ".join(f"{name}:{job.num_gpus}" for name in ("L4", "L40S", "A100-80GB", "H100"))
        lines.append(f"  accelerators: {{{kinds}}}  # one of them; `--on` names yours")
    if job.disk_gb:
        lines.append(f"  disk_size: {math.ceil(job.disk_gb)}")
    lines += [
        "  use_spot: true",
        "  job_recovery:",
        "    strategy: EAGER_NEXT_REGION",
        "    max_restarts_on_errors: 0  # a stage that fails would fail again",
        f"    recover_on_exit_codes: [{RESUMABLE}]  # stopped, goes on from the store",
    ]
    if job.secrets:
        lines += ["secrets:", *(f"  {name}: null" for name in job.secrets)]
    wheel = f"adapt-mllm=={job.version}"
    lines += ["setup: |", f"  pip install {wheel}", "run: |", f"  {shlex.join(job.command)}"]
    return "\n".join(lines) + "\n"


def _launch(job: JobFile) -> list[str]:
    secrets = [word for name in job.secrets for word in ("--secret", name)]
    return ["sky", "jobs", "launch", *secrets, "FILE"]


def _clock(hours: float) -> str:
    minutes = GRAIN_MIN * math.ceil(60 * hours / GRAIN_MIN)
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02}:{rest % 60:02}:00"
    return f"{days}-{clock}" if days else clock


def _quoted(text: str) -> str:
    """Return text as a YAML scalar."""
    import json

    return json.dumps(text)
