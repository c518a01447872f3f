"""Two plans side by side: what would run again, what is new, what has gone, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.plan import diff, graph
from engine.plan.diff import Change
from engine.plan.stage import Node, Plan

UNCHANGED = "unchanged"
ADDED = "added"
REMOVED = "removed"
OWN = "own change"
UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class NodeChange:
    """What became of one node."""

    id: str
    state: str  # UNCHANGED, ADDED, REMOVED, OWN, UPSTREAM
    node: Node  # the new one; of a removed node the old one
    old: Node | None = None
    changes: tuple[Change, ...] = ()  # of its own pre-image, inputs left out
    roots: tuple[str, ...] = ()  # of UPSTREAM: the nodes whose change reaches it


@dataclass(frozen=True, slots=True)
class PlanChanges:
    """What became of every node: those of the new plan in its order, then the removed ones."""

    nodes: tuple[NodeChange, ...] = field(default=())

    def of(self, *states: str) -> list[NodeChange]:
        """Return the nodes in one of some states."""
        return [node for node in self.nodes if node.state in states]

    @property
    def reruns(self) -> list[NodeChange]:
        """Return the nodes whose work the old plan did not ask for."""
        return self.of(ADDED, OWN, UPSTREAM)


def compare(old: Plan, new: Plan) -> PlanChanges:
    """Compare two plans by keys first, then by ids; reports are left out: they follow all else."""
    before = {node.key: node for node in old.nodes if node.stage != "report"}
    by_id = {node.id: node for node in before.values()}
    found: dict[str, NodeChange] = {}
    for node in new.nodes:
        if node.stage != "report":
            found[node.id] = _change(node, before.get(node.key), by_id.get(node.id), found)
    kept_ids = {change.old.id for change in found.values() if change.old is not None}
    gone = [node for node in before.values() if node.id not in kept_ids and node.id not in found]
    removed = [NodeChange(node.id, REMOVED, node, node) for node in gone]
    return PlanChanges((*found.values(), *removed))


def own_changes(old: Node, new: Node) -> tuple[Change, ...]:
    """Return what differs in what two nodes are made of, apart from their inputs."""
    return tuple(c for c in diff.changes(old.preimage, new.preimage) if not c.is_input)


def neutral_changes(old: Plan, new: Plan) -> dict[str, tuple[Change, ...]]:
    """Return, by node, params that differ though the work is the same: batch sizes and the like."""
    before = {node.id: node for node in old.nodes}
    found = {}
    for node in new.nodes:
        same = before.get(node.id)
        if same is not None and same.key == node.key and same.params != node.params:
            found[node.id] = tuple(diff.changes(same.params, node.params))
    return found


def _change(
    node: Node, same: Node | None, old: Node | None, found: Mapping[str, NodeChange]
) -> NodeChange:
    if same is not None:
        return NodeChange(node.id, UNCHANGED, node, same)
    roots = _roots(node, found)
    if old is None:
        return NodeChange(node.id, ADDED, node, None, (), roots)
    changes = own_changes(old, node)
    return NodeChange(node.id, OWN if changes else UPSTREAM, node, old, changes, roots)


def _roots(node: Node, found: Mapping[str, NodeChange]) -> tuple[str, ...]:
    """Return the nodes upstream where the change of a node began."""
    roots: dict[str, Any] = {}
    for name in sorted(graph.parents(node)):
        change = found.get(name)
        if change is not None and change.state in (OWN, ADDED):
            roots[name] = None
        elif change is not None:
            roots |= dict.fromkeys(change.roots)
    return tuple(roots)
