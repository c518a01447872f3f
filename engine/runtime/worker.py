"""The life of one node, inside its own process: bind, run, publish, report.

The process that works on a key holds its lock, so that two runs never write the same scratch. It
ends itself when the engine that started it is gone.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from engine import plugin
from engine.artifacts import Artifact, Inputs, Outputs
from engine.diagnostics import AdaptError, ExitCode, StageError
from engine.plan import graph
from engine.plan.stage import Machine, Node, Part, PartDone, Stage, Stopped, Tools
from engine.runtime import opening, retries
from engine.runtime.locks import BEAT_S, KeyLock
from engine.runtime.store import Store

PROGRESS_EVERY_S = 0.2
LOCK_POLL_S = 0.25
MEANWHILE = "another run finished it meanwhile"
Send = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is asked to do."""

    node: Node
    store: Path
    inputs: Mapping[str, Mapping[str, str]]  # port -> label -> key
    machine: Machine
    folder: Path  # relative paths of the recipe start here
    part: Part | None = None  # work on this share of the shards only
    remote: str = ""  # URL of a shared store

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "node": graph.node_to_json(self.node),
            "store": str(self.store),
            "inputs": {port: dict(labels) for port, labels in self.inputs.items()},
            "machine": asdict(self.machine),
            "folder": str(self.folder),
            "remote": self.remote,
            "part": asdict(self.part) if self.part else None,
        }


def job_from_json(data: Mapping[str, Any]) -> Job:
    """Read a job."""
    return Job(
        node=graph.node_from_json(data["node"]),
        store=Path(data["store"]),
        inputs=data["inputs"],
        machine=Machine(**data["machine"]),
        folder=Path(data["folder"]),
        remote=data.get("remote", ""),
        part=Part(**data["part"]) if data.get("part") else None,
    )


@dataclass(frozen=True, slots=True)
class World:
    """What names in a job stand for; given by the composition root."""

    stage: Callable[[str], Stage]
    locate: Callable[[str], Path]
    locate_model: Callable[[str], str]


def work(job: Job, world: World, send: Send) -> int:
    """Run a job and send its messages; return the exit code of the process.

    Messages: `waiting` (for another run), `working`, `progress`, and last `finished`, `part` (its
    share of the shards is done), `cached`, `damaged` (inputs) or `failed`. A process that was asked
    to stop ends without a last message.
    """
    stop = StopSignal()
    try:
        send(execute(job, world, send, stop))
    except Stopped:
        return int(ExitCode.STOPPED_RESUMABLE)
    except Exception as error:  # top of the process: the parent must learn of everything
        # Where these rose is no help to people. A full disk may be the one with the log.
        if not (isinstance(error, AdaptError) or _is_full_disk(error)):
            import traceback

            with suppress(OSError):
                traceback.print_exc()
        send(_failure(error))
        return 1
    return 0


class StopSignal:
    """Whether SIGTERM has come. A stage that never asks is ended by it at once."""

    def __init__(self) -> None:
        self._has_come = False
        self._is_asked = False
        signal.signal(signal.SIGTERM, self._note)

    def has_come(self) -> bool:
        """Tell whether to stop; who asks promises to save what is done, and raise `Stopped`."""
        self._is_asked = True
        return self._has_come

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._has_come = True
        if not self._is_asked:
            os._exit(ExitCode.STOPPED_RESUMABLE)  # a kill at any instant is safe


def execute(job: Job, world: World, send: Send, stop: StopSignal) -> dict[str, Any]:
    """Run a job under the lock of its key and publish its artifact; return the last message."""
    store = opening.open_store(job.store, job.remote)
    part = f".part-{job.part.index}-of-{job.part.count}" if job.part else ""
    lock = store.lock(f"{job.node.key}{part}")
    if not lock.try_acquire():
        send({"type": "waiting"})
        while not lock.try_acquire():
            time.sleep(LOCK_POLL_S)
    send({"type": "working"})
    released = _keep_touching(lock)
    try:
        if store.get(job.node.key) is not None:
            return {"type": "cached", "reason": MEANWHILE}
        with store.working_on(job.node.key):
            return _run_stage(job, world, store, send, stop, lock)
    finally:
        released.set()
        lock.release()


def _run_stage(
    job: Job, world: World, store: Store, send: Send, stop: StopSignal, lock: KeyLock
) -> dict[str, Any]:
    node = job.node
    stage = world.stage(node.stage)
    reads = stage.reads(node.params)
    parents = _parents(store, job)
    inputs = Inputs({port: _narrowed(labels, reads.get(port)) for port, labels in parents.items()})
    tools = Tools(
        seed=node.seed,
        scratch=store.scratch(node.key),
        prompts=node.prompts,
        machine=job.machine,
        locate=world.locate,
        locate_model=world.locate_model,
        log=_log,
        progress=throttled(send, time.monotonic),
        part=job.part,
        stopping=stop.has_come,
    )
    params = plugin.bind(stage.params, node.params)
    if job.part is not None:
        found = _run_part(stage, inputs, params, tools)
        _check_inputs(store, job)
        return found
    outputs = Outputs(store.staging(node.key))
    try:
        stage.run(inputs, params, outputs, tools)
        counts = outputs.counts()
        _check_inputs(store, job)
        if not lock.is_ours():
            raise StageError(
                "another run took the node over while this process stood still", is_transient=True
            )
        store.publish(node, outputs.path, counts, parents, reads)
    except Exception:
        store.discard(outputs.path)  # on a full disk the other nodes need the room now
        raise
    return {"type": "finished", "counts": counts}


def _parents(store: Store, job: Job) -> dict[str, dict[str, Artifact]]:
    return {
        port: {label: _input(store, key, label) for label, key in labels.items()}
        for port, labels in job.inputs.items()
    }


def _check_inputs(store: Store, job: Job) -> None:
    """Raise InputError if an input was touched while it was read: what was made of it is void."""
    try:
        _parents(store, job)
    except InputError:
        store.forget(job.node.key)
        raise


def _run_part(stage: Stage, inputs: Inputs, params: Any, tools: Tools) -> dict[str, Any]:
    """Fill the scratch with a share of the shards; what it writes beside is thrown away."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=tools.scratch, prefix="outputs.", suffix=".tmp") as folder:
        try:
            stage.run(inputs, params, Outputs(Path(folder)), tools)
        except PartDone:
            return {"type": "part"}
    raise AssertionError(f"stage `{stage.name}` is sharded, but a part of it does not end")


def throttled(send: Send, clock: Callable[[], float]) -> Callable[[int, int | None, str], None]:
    """Return a progress function that sends a few messages a second, and always the last one."""
    last = float("-inf")

    def progress(done: int, total: int | None, unit: str) -> None:
        nonlocal last
        now = clock()
        if now - last >= PROGRESS_EVERY_S or done == total:
            last = now
            send({"type": "progress", "done": done, "total": total, "unit": unit})

    return progress


def sender(descriptor: int | None) -> Send:
    """Return a function that writes messages as JSON lines to a pipe, or to the log without one."""

    def send(message: Mapping[str, Any]) -> None:
        line = json.dumps(message) + "\n"
        if descriptor is None:
            print(line, end="", flush=True)
        else:
            os.write(descriptor, line.encode())

    return send


def die_with_parent(lifeline: int) -> None:
    """End this process group as soon as the parent is gone: it holds the pipe's other end."""

    def watch() -> None:
        select.select([lifeline], [], [])
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def _keep_touching(lock: KeyLock) -> threading.Event:
    """Touch a lock from a thread until the returned event is set."""
    released = threading.Event()

    def beat() -> None:
        while not released.wait(BEAT_S):
            lock.touch()

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
    return released


class InputError(StageError):
    """Artifacts that a job reads are damaged or gone; they must be made anew."""

    def __init__(self, message: str, keys: Sequence[str]) -> None:
        super().__init__(message, hint="run the same command again")
        self.keys = tuple(keys)


def _input(store: Store, key: str, label: str) -> Artifact:
    artifact = store.fetch(key)
    if artifact is None:
        raise InputError(f"its input `{label}` has gone from the store", (key,))
    return artifact


def _narrowed(labels: Mapping[str, Artifact], reads: tuple[str, ...] | None) -> dict[str, Artifact]:
    return {label: replace(artifact, reads=reads or ()) for label, artifact in labels.items()}


def _failure(error: Exception) -> dict[str, Any]:
    hint = getattr(error, "hint", None)
    if isinstance(error, InputError):
        return {"type": "damaged", "message": str(error), "keys": list(error.keys)}
    if _is_full_disk(error):
        hint = "make room on the disk or choose another `--store`; finished work is kept"
    return {
        "type": "failed",
        "message": _short(error),
        "hint": hint,
        "transient": retries.kind_of(error),
        **_blamed(error),
    }


def _blamed(error: Exception) -> dict[str, Any]:
    """Return the kind of mistake and the setting at fault, as far as the stage knew them."""
    if not isinstance(error, StageError):
        return {}
    return {"code": error.code, "about": list(error.about)}


def _is_full_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, AdaptError):
        return text
    name = type(error).__name__
    return f"{name}: {text[:400]}" if text else name
