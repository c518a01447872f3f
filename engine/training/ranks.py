"""Trains one model with several processes of one machine, a device each.

This process starts them, passes on what they say, and ends all of them when one dies or when it is
asked to stop; they end themselves when it is gone. They talk to each other over the loopback.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from engine.diagnostics import StageError
from engine.models._inputs import InputMaker
from engine.plan.stage import Machine, Stopped, Tools
from engine.training.job import Job, start
from engine.training.loop import Trainer, is_out_of_memory
from engine.training.prepared import Examples

LOOPBACK = "127.0.0.1"
POLL_S = 0.2
CACHE_BYTES = 2**29  # of prepared images, in each process
# One device holds a model and its training if this share of it does; activations need the rest.
MODEL_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Work:
    """What every process is given."""

    job: Job
    read_image: Callable[[str], bytes]
    examples: Examples
    held_out: Examples
    seed: int
    scratch: Path


def count(job: Job, machine: Machine) -> int:
    """Return how many processes train: a row of each batch at least for each of them."""
    return max(min(machine.num_devices, job.training.global_batch_size), 1)


def train(work: Work, tools: Tools) -> None:
    """Train to the end; leaves a checkpoint after the last step, or of the last when stopped."""
    with _started(work, tools) as members:
        _wait(members, tools)


@dataclass(slots=True)
class _Member:
    """One of the processes, seen from the one that started it."""

    rank: int
    process: Any
    pipe: Connection
    is_done: bool = False


@contextmanager
def _started(work: Work, tools: Tools) -> Iterator[list[_Member]]:
    from torch.distributed import TCPStore

    num = count(work.job, tools.machine)
    # Held by this process, so that there is a port before there is anyone to ask for it.
    store = TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    try:
        for rank in range(num):
            ours, theirs = context.Pipe()
            given = (work, tools.machine, rank, num, store.port, theirs)
            process = context.Process(target=_member, args=given, daemon=True)
            process.start()
            theirs.close()
            members.append(_Member(rank, process, ours))
        yield members
    finally:
        for member in members:
            member.process.kill()
        for member in members:
            member.process.join()
            member.pipe.close()


def _wait(members: list[_Member], tools: Tools) -> None:
    """Pass on messages until all are done. Raise what one of them ended with."""
    is_told = False
    while not all(member.is_done for member in members):
        if tools.stopping() and not is_told:
            is_told = _tell(members[0])
        watched = [member for member in members if not member.is_done]
        ready = wait([m.pipe for m in watched] + [m.process.sentinel for m in watched], POLL_S)
        # First those that died: what the others then say is only that somebody is missing.
        for member in watched:
            if member.process.sentinel in ready and not member.pipe.poll():
                _mourn(member, tools)
        for member in watched:
            if member.pipe in ready:
                _hear(member, tools)


def _tell(first: _Member) -> bool:
    """Ask the first process to stop; the others do what it does, or wait for it."""
    try:
        first.pipe.send("stop")
    except OSError:  # it is gone: its end says more
        return False
    return True


def _hear(member: _Member, tools: Tools) -> None:
    """Act on a message."""
    try:
        kind, *values = member.pipe.recv()
    except (EOFError, ConnectionError):
        member.process.join()
        _mourn(member, tools)
        return
    if kind == "log":
        tools.log(*values)
    elif kind == "progress":
        tools.progress(*values)
    elif kind == "done":
        member.is_done = True
    elif kind == "stopped":
        raise Stopped
    elif kind == "memory":  # worth another attempt, with smaller batches
        raise MemoryError(f"training process {member.rank}: {values[0]}")
    else:
        raise StageError(f"training process {member.rank}: {values[0]}", hint=values[1])


def _mourn(member: _Member, tools: Tools) -> None:
    """Raise what the end of a process without a message means."""
    if tools.stopping():  # the signal was for all of them, and found this one unprepared
        raise Stopped
    member.process.join(5)  # its pipe closes a moment before its end can be read
    code = member.process.exitcode
    if code == -signal.SIGKILL:  # what Linux does to those that take too much
        raise MemoryError(f"training process {member.rank} was killed")
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    raise StageError(f"training process {member.rank} ended {how}")


def _member(work: Work, machine: Machine, rank: int, num: int, port: int, pipe: Connection) -> None:
    """Live as one of the processes."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the parent tells whom it concerns
    threading.Thread(target=_end_with_parent, daemon=True, name="lifeline").start()
    try:
        _train(work, machine, rank, num, port, pipe)
        pipe.send(("done",))
    except Stopped:
        pipe.send(("stopped",))
    except StageError as error:
        pipe.send(("failed", str(error), error.hint))
    except Exception as error:  # top of the process: the parent must learn of everything
        traceback.print_exc()
        kind = "memory" if is_out_of_memory(error) else "failed"
        pipe.send((kind, f"{type(error).__name__}: {error}"[:400], None))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(work: Work, machine: Machine, rank: int, num: int, port: int, pipe: Connection) -> None:
    from engine.training import together

    own = replace(machine, num_threads=max(machine.num_threads // num, 1))
    tools = _tools(work, own, rank, pipe)
    kit = work.job.kit()
    with together.joined(LOOPBACK, port, rank, num, machine.device):
        model = start(kit, work.job, work.seed, "cpu")
        team: Any
        if _is_too_large(model, machine):
            tools.log("the model is split over the devices: one does not hold it")
            team = together.Split(rank, num, machine.device)
            team.split(model)
        else:
            team = together.Replicas(rank, num)
            model.to(machine.device)
        inputs = InputMaker(kit, work.read_image, CACHE_BYTES)
        rows, held_out, training = work.examples, work.held_out, work.job.training
        Trainer(model, kit.family, inputs, rows, held_out, training, tools, team).run()


def _tools(work: Work, machine: Machine, rank: int, pipe: Connection) -> Tools:
    """Return tools that pass everything on to the parent; only the first process speaks."""
    is_first = rank == 0

    def log(message: str) -> None:
        if is_first:
            pipe.send(("log", message))

    def progress(done: int, total: int | None, unit: str) -> None:
        if is_first:
            pipe.send(("progress", done, total, unit))

    return Tools(
        seed=work.seed,
        scratch=work.scratch,
        prompts={},
        machine=machine,
        locate=Path,
        locate_model=str,
        log=log,
        progress=progress,
        stopping=pipe.poll,  # the parent says nothing else
    )


def _is_too_large(model: Any, machine: Machine) -> bool:
    """Tell whether one device cannot hold weights, gradients and moments, all float32."""
    held = sum(
        4 * p.numel() + (12 * p.numel() if p.requires_grad else 0) for p in model.parameters()
    )
    found = _device_bytes(machine)
    return found is not None and held > MODEL_SHARE * found


def _device_bytes(machine: Machine) -> float | None:
    import torch

    if machine.device_memory_gb:
        return machine.device_memory_gb * 1e9
    if machine.device == "cpu":
        return None  # all processes share one memory: to split saves nothing
    return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
