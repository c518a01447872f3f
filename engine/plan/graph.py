"""A plan as JSON, and as a graph: who needs whom.

The JSON holds no time, host or absolute path; the same recipe text gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engine.plan import keys
from engine.plan.stage import Needs, Node, Plan

FORMAT = 1


def to_json(plan: Plan) -> dict[str, Any]:
    """Return the JSON form; `from_json` reads it back to an equal plan."""
    return {"plan": FORMAT, "recipe": plan.recipe, "nodes": [node_to_json(n) for n in plan.nodes]}


def from_json(data: Mapping[str, Any]) -> Plan:
    """Read what `to_json` wrote. Raise ValueError when it is no sound plan."""
    if data.get("plan") != FORMAT:
        raise ValueError(f"plan format {data.get('plan')!r} is not {FORMAT}")
    plan = Plan(data["recipe"], tuple(node_from_json(node) for node in data["nodes"]))
    check(plan)
    return plan


def node_to_json(node: Node) -> dict[str, Any]:
    """Return the JSON form of one node."""
    return {
        "id": node.id,
        "stage": node.stage,
        "key": node.key,
        "params": dict(node.params),
        "inputs": {port: dict(labels) for port, labels in node.inputs.items()},
        "preimage": dict(node.preimage),
        "seed": node.seed,
        "prompts": dict(node.prompts),
        "origin": dict(node.origin),
        "arms": list(node.arms),
        "needs": node.needs._asdict(),
    }


def node_from_json(data: Mapping[str, Any]) -> Node:
    """Read one node."""
    return Node(
        id=data["id"],
        stage=data["stage"],
        params=data["params"],
        inputs=data["inputs"],
        key=data["key"],
        preimage=data["preimage"],
        seed=data["seed"],
        prompts=data["prompts"],
        origin=data["origin"],
        arms=tuple(data["arms"]),
        needs=Needs(**data["needs"]),
    )


def digest(plan: Plan) -> str:
    """Return the SHA-256 of a plan's canonical JSON."""
    return keys.digest(to_json(plan))


def check(plan: Plan) -> None:
    """Raise ValueError unless ids are unique, inputs stand before their users, and keys hold."""
    seen: set[str] = set()
    for node in plan.nodes:
        if node.id in seen:
            raise ValueError(f"node `{node.id}` stands in the plan twice")
        missing = sorted(parents(node) - seen)
        if missing:
            raise ValueError(f"node `{node.id}` reads `{missing[0]}`, which does not come before")
        if keys.digest(node.preimage) != node.key:
            raise ValueError(f"the key of node `{node.id}` is not the digest of its pre-image")
        seen.add(node.id)


def parents(node: Node) -> set[str]:
    """Return the ids of the nodes that a node reads."""
    return {node_id for labels in node.inputs.values() for node_id in labels.values()}


def with_ancestors(plan: Plan, wanted: Iterable[str]) -> Plan:
    """Return the part of a plan that the wanted nodes need, themselves included."""
    needed = set(wanted)
    for node in reversed(plan.nodes):
        if node.id in needed:
            needed |= parents(node)
    return Plan(plan.recipe, tuple(node for node in plan.nodes if node.id in needed))


def descendants(plan: Plan, node_id: str) -> set[str]:
    """Return the ids of all nodes that need a node, directly or not."""
    found = {node_id}
    for node in plan.nodes:
        if parents(node) & found:
            found.add(node.id)
    return found - {node_id}
