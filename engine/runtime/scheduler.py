"""Which node may start next: decisions only, no process, no clock.

The longest remaining chain goes first. A node that wants many cores gets all but one, so that light
nodes go on beside it (on two cores a second thread made a small model learn 1.06 times as fast, a
second process did 1.7 times as much). While it waits, nothing less urgent overtakes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
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


@dataclass(frozen=True, slots=True)
class Placement:
    """What one node gets: a number of threads, and a GPU or none."""

    threads: int
    gpu: int | None = None


def urgency(plan: Plan) -> dict[str, int]:
    """Return for each node the weight of the longest chain from it to the end of the plan."""
    own = {node.id: _weight(node.needs) for node in plan.nodes}
    longest = dict(own)
    for node in reversed(plan.nodes):
        for parent in graph.parents(node):
            longest[parent] = max(longest[parent], own[parent] + longest[node.id])
    return longest


def threads_of(node: Node, capacity: Capacity) -> int:
    """Return the threads of a node: fixed by settings, never by what else is running."""
    if node.needs.accelerator and capacity.num_gpus > 0:
        return max(1, capacity.threads // (capacity.num_gpus + 1))
    return max(1, capacity.threads - 1) if node.needs.all_threads else 1


def next_to_start(
    ready: Sequence[Node], running: Mapping[str, Placement], capacity: Capacity
) -> tuple[Node, Placement] | None:
    """Return the first of the ready nodes, most urgent first, if there is room for it now."""
    free_threads = capacity.threads - sum(place.threads for place in running.values())
    taken = {place.gpu for place in running.values()}
    free_gpus = [gpu for gpu in range(capacity.num_gpus) if gpu not in taken]
    for node in ready:
        wants_gpu = node.needs.accelerator and capacity.num_gpus > 0
        if wants_gpu and not free_gpus:
            continue  # it waits for a GPU, which nodes without one do not take away
        threads = threads_of(node, capacity)
        if threads > free_threads:
            return None
        return node, Placement(threads, free_gpus[0] if wants_gpu else None)
    return None


def ready_nodes(
    plan: Plan, done: Set[str], started: Set[str], urgencies: Mapping[str, int]
) -> list[Node]:
    """Return the nodes whose inputs are done and that were not started, most urgent first."""
    found = [
        node
        for node in plan.nodes
        if node.id not in done and node.id not in started and graph.parents(node) <= done
    ]
    return sorted(found, key=lambda node: -urgencies[node.id])


def _weight(needs: Needs) -> int:
    if needs.all_threads:
        return _WEIGHT_TRAINING
    return _WEIGHT_MODEL if needs.accelerator else _WEIGHT_LIGHT
