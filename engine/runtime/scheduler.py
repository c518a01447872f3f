"""Which node may start next, and on what: decisions only, no process, no clock.

The longest remaining chain goes first. A node that wants many cores gets all but one, so that light
nodes go on beside it (on two cores a second thread made a small model learn 1.06 times as fast, a
second process did 1.7 times as much). While it waits for cores or memory, nothing less urgent
overtakes it, so it cannot starve; a node that is too big for the machine runs alone.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.plan import graph
from engine.plan.stage import Needs, Node, Plan

# Rough shares of a run's time; only their order matters.
_WEIGHT_TRAINING, _WEIGHT_MODEL, _WEIGHT_LIGHT = 20, 8, 1


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the nodes of one run share."""

    threads: int
    num_gpus: int = 0
    memory_gb: float | None = None  # None: not known, so not counted
    gpu_memory_gb: Sequence[float] = ()  # by GPU; empty: not known
    busy_gpus: frozenset[int] = frozenset()  # held by other runs
    # Threads and GPUs of each machine, the GPUs in the order of the machines; empty: there is one.
    # One with no threads has left.
    machines: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """What one process of a node is expected to take at its peak; zero where nothing is known."""

    memory_gb: float = 0.0
    gpu_memory_gb: float = 0.0
    disk_gb: float = 0.0
    # GPUs of one machine that a model is split over or copied to; none: it answers elsewhere, and
    # one process asks it, so that limits and a budget count once.
    num_gpus: int = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """What one process gets: a number of threads, GPUs or none, and memory to count on."""

    threads: int
    gpus: tuple[int, ...] = ()
    memory_gb: float = 0.0


PART_ROWS = 256  # fewer are not worth a process
NOTHING = Demand()
_Entry = tuple[int, int, str]  # minus the urgency, place in the plan, node id


class Frontier:
    """The nodes whose inputs are all done, most urgent first; a step costs what it changes."""

    def __init__(self, plan: Plan) -> None:
        ranks = urgency(plan)
        self._nodes = {node.id: node for node in plan.nodes}
        self._entry = {n.id: (-ranks[n.id], place, n.id) for place, n in enumerate(plan.nodes)}
        self._children: dict[str, list[str]] = {node.id: [] for node in plan.nodes}
        self._num_missing: dict[str, int] = {}
        self._ready: list[_Entry] = []  # sorted
        self._taken: set[str] = set()  # being worked on, or over: also before their inputs are done
        for node in plan.nodes:
            parents = graph.parents(node)
            self._num_missing[node.id] = len(parents)
            for parent in parents:
                self._children[parent].append(node.id)
            self.offer(node.id)

    def ready(self) -> Iterator[Node]:
        """Yield the ready nodes, most urgent first."""
        return (self._nodes[node_id] for _, _, node_id in self._ready)

    def take(self, node_id: str) -> None:
        """Remove a node that is being worked on, or is over."""
        self._taken.add(node_id)
        self._withdraw(node_id)

    def offer(self, node_id: str) -> None:
        """Put a node that is not over (back) among the ready ones, if its inputs are done."""
        self._taken.discard(node_id)
        self._withdraw(node_id)
        self._offer_if_ready(node_id)

    def finish(self, node_id: str) -> None:
        """Take a node as done: those that waited for nothing else become ready."""
        self.take(node_id)
        for child in self._children[node_id]:
            self._num_missing[child] -= 1
            self._offer_if_ready(child)

    def undo(self, node_id: str) -> None:
        """Take a finished node as not done: its result is of no use any more."""
        for child in self._children[node_id]:
            self._withdraw(child)
            self._num_missing[child] += 1
        self.offer(node_id)

    def descendants(self, node_id: str) -> list[str]:
        """Return all nodes that need a node, directly or not, in the order of the plan."""
        found: set[str] = set()
        waiting = [node_id]
        while waiting:
            new = [child for child in self._children[waiting.pop()] if child not in found]
            found.update(new)
            waiting.extend(new)
        return sorted(found, key=lambda name: self._entry[name][1])

    def _withdraw(self, node_id: str) -> None:
        place = bisect_left(self._ready, self._entry[node_id])
        if place < len(self._ready) and self._ready[place][2] == node_id:
            del self._ready[place]

    def _offer_if_ready(self, node_id: str) -> None:
        if self._num_missing[node_id] == 0 and node_id not in self._taken:
            insort(self._ready, self._entry[node_id])


def urgency(plan: Plan) -> dict[str, int]:
    """Return for each node the weight of the longest chain from it to the end of the plan."""
    own = {node.id: _weight(node.needs) for node in plan.nodes}
    longest = dict(own)
    for node in reversed(plan.nodes):
        for parent in graph.parents(node):
            longest[parent] = max(longest[parent], own[parent] + longest[node.id])
    return longest


def next_to_start(
    ready: Iterable[Node],
    running: Collection[Placement],
    capacity: Capacity,
    demands: Mapping[str, Demand] | None = None,
) -> tuple[Node, Placement] | None:
    """Return the first of the ready nodes, most urgent first, if there is room for it now."""
    free_threads = capacity.threads - sum(place.threads for place in running)
    if free_threads < 1:
        return None
    taken = {gpu for place in running for gpu in place.gpus}
    free_gpus = set(range(capacity.num_gpus)) - taken - capacity.busy_gpus
    for node in ready:
        demand = (demands or {}).get(node.id, NOTHING)
        usable, num_needed = _usable_gpus(node, demand, capacity, free_gpus)
        found = sorted(usable & free_gpus, key=lambda gpu: (_size(gpu, capacity), gpu))
        if len(found) < num_needed:
            free_gpus -= usable  # it waits; what it could use is not taken away from it
            continue
        threads = threads_of(node, capacity, num_needed)
        if threads > free_threads or not _has_memory(demand.memory_gb, running, capacity):
            return None
        return node, Placement(threads, tuple(found[:num_needed]), demand.memory_gb)
    return None


def threads_of(node: Node, capacity: Capacity, num_gpus: int = 1) -> int:
    """Return the threads of a node: fixed by settings, never by what else is running."""
    machines = capacity.machines or ((capacity.threads, capacity.num_gpus),)
    if node.needs.accelerator and capacity.num_gpus > 0 and num_gpus > 0:
        shares = [threads // (gpus + 1) for threads, gpus in machines if gpus and threads]
        share = min(shares, default=0)  # what each of them can give
        wanted = share if node.needs.all_threads else share * num_gpus
        return max(1, min(wanted, capacity.threads))
    widest = min(capacity.threads, max(threads for threads, _ in machines))
    return max(1, widest - 1) if node.needs.all_threads else 1


def num_parts(
    node: Node, num_ready: int, running: Collection[Placement], capacity: Capacity, demand: Demand
) -> int:
    """Return how many processes work on a node's shards side by side.

    A fair share of what is free, counted when it starts, `num_ready` nodes being ready, itself
    included. The result is the same for any number.
    """
    if not node.needs.sharded or demand.num_gpus == 0:
        return 1
    if node.needs.accelerator and capacity.num_gpus > 0:
        taken = {gpu for place in running for gpu in place.gpus} | capacity.busy_gpus
        groups = _gpus_by_machine(capacity)
        free = sum(len(group - taken) // demand.num_gpus for group in groups)
    else:
        free = capacity.threads - sum(place.threads for place in running)
        if capacity.memory_gb is not None and demand.memory_gb > 0:
            left_gb = capacity.memory_gb - sum(place.memory_gb for place in running)
            free = min(free, int(left_gb / demand.memory_gb))
    return max(1, free // max(num_ready, 1))


def num_parts_worth(num_rows: float | None) -> int:
    """Return how many processes so many rows are worth: starting one takes as long as some do."""
    return sys.maxsize if num_rows is None else max(1, int(num_rows // PART_ROWS))


def _usable_gpus(
    node: Node, demand: Demand, capacity: Capacity, free: Collection[int]
) -> tuple[set[int], int]:
    """Return the GPUs that could serve a node, and how many of them it gets.

    Training gets all those of a machine, a model as many of one machine as it wants, each of which
    holds its part; where none is known to be large enough, the largest: a forecast may be wrong.
    """
    if not node.needs.accelerator or capacity.num_gpus == 0 or demand.num_gpus == 0:
        return set(), 0
    if node.needs.all_threads:
        groups = _gpus_by_machine(capacity)
        most = max(map(len, groups))
        widest = [group for group in groups if len(group) == most]
        chosen = next((group for group in widest if group <= set(free)), widest[0])
        return chosen, most
    every = set(range(capacity.num_gpus))
    wanted = min(demand.gpu_memory_gb, max(_size(gpu, capacity) for gpu in every))
    fit = {gpu for gpu in every if _size(gpu, capacity) >= wanted}
    if demand.num_gpus == 1:
        return fit, 1
    there = [group & fit for group in _gpus_by_machine(capacity)]
    num = min(demand.num_gpus, max(map(len, there)))
    enough = [group for group in there if len(group) >= num]
    return next((group for group in enough if len(group & set(free)) >= num), enough[0]), num


def _gpus_by_machine(capacity: Capacity) -> list[set[int]]:
    """Return the GPUs of each machine that is there."""
    if not capacity.machines:
        return [set(range(capacity.num_gpus))]
    groups, first = [], 0
    for threads, num in capacity.machines:
        if threads:
            groups.append(set(range(first, first + num)))
        first += num
    return groups


def _size(gpu: int, capacity: Capacity) -> float:
    return capacity.gpu_memory_gb[gpu] if capacity.gpu_memory_gb else 0.0


def _has_memory(memory_gb: float, running: Collection[Placement], capacity: Capacity) -> bool:
    if capacity.memory_gb is None or not running:
        return True  # what does not fit beside anything runs alone
    used_gb = sum(place.memory_gb for place in running)
    return used_gb + memory_gb <= capacity.memory_gb


def _weight(needs: Needs) -> int:
    if needs.all_threads:
        return _WEIGHT_TRAINING
    return _WEIGHT_MODEL if needs.accelerator else _WEIGHT_LIGHT
