"""Runs the processes of a plan on a Ray cluster: one actor per process, no data through Ray.

Artifacts and scratch go through the store, which every machine sees. What travels is the job, its
messages and the lines of its log. A machine that is lost is a process that ended: the executor
starts it again elsewhere, and it goes on from its journal.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import __version__
from engine.runtime import local, ray_cluster
from engine.runtime.child import End, Usage
from engine.runtime.machine import Settings
from engine.runtime.ray_cluster import RayMachine
from engine.runtime.ray_node import News, NodeProcess, Order
from engine.runtime.scheduler import Capacity, Placement
from engine.runtime.worker import Job

LOOK_EVERY_S = 2.0  # at the machines of the cluster
NEWS_S = 2.0  # the longest a living process says nothing to its driver
NO_ROOM_S = 60.0  # that a process waits for a machine when none can hold it
KILL_S = 3.0  # that a kill may take to be confirmed; a lost machine never does


@dataclass(slots=True)
class RayLauncher:
    """Starts processes on a cluster; `command` is what makes an interpreter a worker there."""

    settings: Settings
    command: Sequence[str]
    _ray: Any = None  # the module, once connected
    _actor: Any = None
    _machines: list[RayMachine] = field(default_factory=list)
    _looked_at: float = float("-inf")
    _started: list[RayWorker] = field(default_factory=list)

    def connect(self) -> None:
        """Connect to the cluster. Raises RequestError where it cannot.

        Called before a run that has work to do; another connects if it finds some after all.
        """
        self._ray = ray_cluster.connect(self.settings.ray_address, self.settings)
        # `max_concurrency`: a signal must get through while the driver waits for news.
        self._actor = self._ray.remote(max_concurrency=3, max_restarts=0)(NodeProcess)

    def machines(self) -> Sequence[RayMachine]:
        """Return the machines of the cluster as they are about now; later ones are found too."""
        if self._ray is None:
            self.connect()
        now = time.monotonic()
        if now - self._looked_at > LOOK_EVERY_S:
            self._looked_at = now
            self._machines = ray_cluster.machines(self._ray.nodes(), self._machines)
        return self._machines

    def capacity(self) -> Capacity:
        """Return what the cluster has for the run now."""
        return ray_cluster.capacity(self.machines(), self.settings)

    def start(self, job: Job, placement: Placement, log_path: Path) -> RayWorker:
        """Ask Ray for a process; its output is appended to the log here as it comes."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        asked = ray_cluster.resources(
            self.machines(), placement.threads, placement.gpus, placement.memory_gb
        )
        group, options = None, _options(asked)
        if job.node.needs.all_threads:
            group, options = self._group(asked)
        data = json.loads(json.dumps(job.to_json()))  # plain, whatever types the plan holds
        order = Order(__version__, data, self.command, len(placement.gpus), self.settings)
        actor = self._actor.options(**options).remote(order)
        worker = RayWorker(self, actor, group, asked, log_path, time.monotonic())
        self._started = [*(one for one in self._started if not one.is_closed), worker]
        return worker

    def _group(self, asked: Mapping[str, float]) -> tuple[Any, dict[str, Any]]:
        """Reserve all of a training's cores and GPUs together, on one machine."""
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = placement_group([dict(asked)], strategy="STRICT_PACK")
        strategy = PlacementGroupSchedulingStrategy(placement_group=group)
        return group, {**_options(asked), "scheduling_strategy": strategy}

    def wait(self, timeout_s: float) -> None:
        """Wait for news of any process."""
        refs = [worker.ref for worker in self._started if not worker.is_closed]
        if not refs:
            time.sleep(timeout_s)
            return
        self._ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=False)

    def close(self) -> None:
        """Leave the cluster; what it still runs for this run ends."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None


def _options(asked: Mapping[str, float]) -> dict[str, Any]:
    rest = {name: value for name, value in asked.items() if name not in ("CPU", "GPU", "memory")}
    return {
        "num_cpus": asked["CPU"],
        "num_gpus": asked.get("GPU", 0),
        "memory": asked.get("memory") or None,
        "resources": rest or None,
    }


@dataclass(slots=True)
class RayWorker:
    """A process on the cluster, as the executor sees it."""

    launcher: RayLauncher
    actor: Any
    group: Any  # the placement group, or None
    asked: Mapping[str, float]
    log_path: Path
    started_at: float
    ref: Any = None  # the news that was asked for
    pid: int = 0  # on its machine; 0 until it runs
    last: Mapping[str, Any] | None = None
    is_waiting: bool = False
    is_closed: bool = False
    _messages: list[Mapping[str, Any]] = field(default_factory=list)
    _usage: Usage | None = None
    _end: End | None = None
    _killed_at: float | None = None

    def __post_init__(self) -> None:
        """Ask for news."""
        self.ref = self.actor.news.remote(NEWS_S)

    def messages(self) -> Iterator[Mapping[str, Any]]:
        """Yield the messages that have come."""
        self._take_news()
        taken, self._messages = self._messages, []
        yield from taken

    def end(self) -> End | None:
        """Return how the process ended, or None while it runs or waits for room."""
        self._take_news()
        if self._end is None and self._killed_at is not None:
            if time.monotonic() - self._killed_at > KILL_S:
                self._end = self._lost(signal.SIGKILL)
        elif self._end is None and self.pid == 0 and self._has_no_room():
            self._say("no machine of the Ray cluster has room for it any more")
            self._end = self._lost(signal.SIGHUP)
        return self._end

    def usage(self) -> Usage | None:
        """Return what it took when its machine last said so."""
        return self._usage

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on; what has not begun, or must end now, is killed by Ray."""
        if self._end is not None or self._killed_at is not None:
            return
        if number != signal.SIGKILL and self.pid:
            self.actor.signal.remote(int(number))
            return
        self._killed_at = time.monotonic()
        self._kill()

    def close(self) -> None:
        """End the actor, and give its place back."""
        self.is_closed = True
        self._kill()
        if self.group is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(self.group)

    def log_tail(self, num_lines: int = 12) -> Sequence[str]:
        """Return the last lines of its output that have come."""
        return local.tail(self.log_path, num_lines)

    def _take_news(self) -> None:
        if self._end is not None:
            return
        from ray import exceptions

        ray = self.launcher._ray
        done, _ = ray.wait([self.ref], timeout=0)
        if not done:
            return
        try:
            self._take(ray.get(self.ref))
        except exceptions.RayError as error:
            self._take_loss(error)
        else:
            if self._end is None:
                self.ref = self.actor.news.remote(NEWS_S)

    def _take(self, news: News) -> None:
        self.pid, self._usage, self._end = news.pid, news.usage, news.end
        if news.log:
            with self.log_path.open("ab") as log:
                log.write(news.log)
        for message in news.messages:
            self.is_waiting = message["type"] == "waiting"
            if message["type"] in local.LAST_TYPES:
                self.last = message
            self._messages.append(message)

    def _take_loss(self, error: Exception) -> None:
        if self._killed_at is not None:
            self._end = self._lost(signal.SIGKILL)
            return
        if "No module named" in str(error):
            hint = "install adapt on every machine of the Ray cluster"
            self._say("a machine of the Ray cluster has no adapt", hint=hint, transient=None)
        else:
            self._say("its machine of the Ray cluster was lost")
        self._end = self._lost(signal.SIGHUP)

    def _say(
        self, message: str, hint: str | None = None, transient: str | None = "network"
    ) -> None:
        if self.last is None:
            found = {"type": "failed", "message": message, "hint": hint, "transient": transient}
            self.last = found
            self._messages.append(found)

    def _lost(self, number: int) -> End:
        return End(-number, time.monotonic() - self.started_at, 0.0, 0.0)

    def _has_no_room(self) -> bool:
        waited_s = time.monotonic() - self.started_at
        return waited_s > NO_ROOM_S and not ray_cluster.fits(self.launcher.machines(), self.asked)

    def _kill(self) -> None:
        with suppress(Exception):  # of a machine or a cluster that is gone there is nothing to end
            self.launcher._ray.kill(self.actor, no_restart=True)
