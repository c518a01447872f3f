"""A Ray cluster as this run sees it: how it is reached, and which machines it has."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.diagnostics import Diagnostic, RequestError
from engine.runtime.machine import Settings
from engine.runtime.scheduler import Capacity

AUTO, LOCAL = "auto", "local"
CONNECT_S = 5.0
OBJECT_STORE_BYTES = 100 * 10**6  # no artifact goes through it: the least that Ray is glad with
_KIND = "accelerator_type:"
# GB of one GPU by the name that Ray gives its kind (ray.util.accelerators).
_GPU_GB = {
    "P4": 8.0,
    "T4": 16.0,
    "V100": 16.0,
    "P100": 16.0,
    "L4": 24.0,
    "A10G": 24.0,
    "A100": 40.0,
    "A100-40G": 40.0,
    "A100-80G": 80.0,
    "L40S": 48.0,
    "H100": 80.0,
    "H200": 141.0,
    "B200": 180.0,
}


@dataclass(frozen=True, slots=True)
class RayMachine:
    """One machine of the cluster."""

    id: str
    threads: int  # 0: it has left
    num_gpus: int = 0
    memory_gb: float = 0.0
    gpu_kind: str | None = None

    @property
    def gpu_memory_gb(self) -> float:
        """Memory of each of its GPUs; 0 where the kind is not known."""
        return _GPU_GB.get(self.gpu_kind or "", 0.0)


def connect(address: str, settings: Settings) -> Any:
    """Connect to a cluster, or start one on this machine; return the module `ray`.

    Raises RequestError where there is no such cluster, or it cannot be worked with.
    """
    _check_address(address)
    # Before the import, which reads them. Nobody is told that this run exists.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    own = _own_cluster(settings) if address == LOCAL else {}
    try:
        import ray
    except ImportError as error:
        hint = "pip install 'adapt-mllm[ray]', here and on the machines of the cluster"
        raise RequestError(Diagnostic("no-ray", f"Ray is missing: {error}", hint=hint)) from error
    try:
        with _own_signals():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **own,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise RequestError(_refusal(address, error)) from error
    return ray


def _own_cluster(settings: Settings) -> dict[str, Any]:
    """Return the settings of a cluster for this run alone, whose key nobody else has."""
    # Without them Ray would put a key into the user's home, and say so.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return {
        "num_cpus": settings.threads or None,
        "num_gpus": settings.num_gpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }


def _check_address(address: str) -> None:
    """Refuse what cannot be a cluster, sooner than Ray would after a minute of trying."""
    if address in (AUTO, LOCAL):
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()) or "/" in host:
        message = f"'{address}' is not the address of a Ray cluster"
        hint = "`auto`, `local`, or the HOST:PORT that `ray start --head` names, such as :6379"
        raise RequestError(Diagnostic("wrong-ray-address", message, hint=hint))
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise RequestError(_refusal(address, error)) from error


def _refusal(address: str, error: Exception) -> Diagnostic:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return Diagnostic(
            "ray-version",
            f"the Ray cluster at `{address}` is of another version: {text[:300]}",
            hint="use the same Ray and Python here and on the cluster",
        )
    return Diagnostic(
        "no-ray-cluster",
        f"no Ray cluster answers at `{address}`: {text[:200]}",
        hint="start one with `ray start --head`, or use `--ray-address local`",
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals: Ray takes SIGTERM for itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def machines(nodes: Sequence[Mapping[str, Any]], known: Sequence[RayMachine]) -> list[RayMachine]:
    """Return the machines of `ray.nodes()`: the known ones first, those that left without threads.

    A place once given stays, so that the numbers of GPUs keep their meaning while machines come
    and go.
    """
    alive = {node["NodeID"]: _machine(node) for node in nodes if node["Alive"]}
    gone = [
        alive.pop(old.id, RayMachine(old.id, 0, old.num_gpus, 0.0, old.gpu_kind)) for old in known
    ]
    return [*gone, *(machine for machine in alive.values() if machine.threads)]


def _machine(node: Mapping[str, Any]) -> RayMachine:
    found: Mapping[str, float] = node["Resources"]
    kinds = [name.removeprefix(_KIND) for name in found if name.startswith(_KIND)]
    return RayMachine(
        id=node["NodeID"],
        threads=int(found.get("CPU", 0)),
        num_gpus=int(found.get("GPU", 0)),
        memory_gb=found.get("memory", 0.0) / 1e9,
        gpu_kind=kinds[0] if kinds else None,
    )


def capacity(found: Sequence[RayMachine], settings: Settings) -> Capacity:
    """Return what the machines give to a run; `settings.threads` limits it unless it is 0."""
    threads = sum(machine.threads for machine in found)
    wants_gpus = settings.device != "cpu"
    gpus = [machine for machine in found for _ in range(machine.num_gpus)] if wants_gpus else []
    sizes = [machine.gpu_memory_gb for machine in gpus]
    return Capacity(
        threads=min(threads, settings.threads or sys.maxsize),
        num_gpus=len(gpus),
        memory_gb=sum(machine.memory_gb for machine in found) or None,
        gpu_memory_gb=sizes if all(sizes) else (),
        busy_gpus=frozenset(n for n, machine in enumerate(gpus) if not machine.threads),
        machines=[(m.threads, m.num_gpus if wants_gpus else 0) for m in found],
    )


def resources(
    found: Sequence[RayMachine], threads: int, gpus: Sequence[int], memory_gb: float
) -> dict[str, float]:
    """Return what to ask of Ray for a process: no more than one machine of the kind ever has."""
    owners = [machine for machine in found for _ in range(machine.num_gpus)]
    kinds = {owners[gpu].gpu_kind for gpu in gpus if gpu < len(owners)}
    able = [
        machine
        for machine in found
        if machine.threads
        and machine.num_gpus >= len(gpus)
        and (machine.gpu_kind in kinds or not gpus)
    ]
    asked: dict[str, float] = {"CPU": min(threads, max((m.threads for m in able), default=threads))}
    if gpus:
        asked["GPU"] = len(gpus)
        asked |= {f"{_KIND}{kind}": 0.001 for kind in kinds if kind}
    room = [machine.memory_gb for machine in able if machine.threads >= asked["CPU"]]
    asked["memory"] = int(1e9 * min(memory_gb, 0.9 * max(room, default=0.0)))
    return {name: amount for name, amount in asked.items() if amount}


def fits(found: Sequence[RayMachine], asked: Mapping[str, float]) -> bool:
    """Tell whether some machine could hold what is asked if it had nothing else to do."""
    kinds = {name.removeprefix(_KIND) for name in asked if name.startswith(_KIND)}
    return any(
        machine.threads >= asked.get("CPU", 0)
        and machine.threads
        and machine.num_gpus >= asked.get("GPU", 0)
        and machine.memory_gb * 1e9 >= asked.get("memory", 0)
        and kinds <= {machine.gpu_kind}
        for machine in found
    )
