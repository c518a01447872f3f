"""What a run would do: a plan joined with a store. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.artifacts import Artifact
from engine.plan import diff, graph
from engine.plan.diff import Change
from engine.plan.estimate import Estimate, Measurement, Past, Stored, estimate
from engine.plan.stage import Node, Plan
from engine.runtime import preimages
from engine.runtime.preimages import Stored as Preimages
from engine.runtime.store import Store
from engine.runtime.timings import measurements

_MIN_COMPARED, _MAX_COMPARED = 20, 20_000  # pre-images for a node, pairs for a stage
CACHED = "cached"
WILL_RUN = "will run"


@dataclass(frozen=True, slots=True)
class NodeOutlook:
    """What would happen to one node, and why."""

    node: Node
    state: str  # CACHED or WILL_RUN
    reason: str
    changes: tuple[Change, ...] = ()  # against the nearest stored pre-image of the same stage
    estimate: Estimate | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A plan as a store sees it."""

    nodes: Sequence[NodeOutlook]
    measured: Sequence[Measurement]  # in order of time
    stored: Mapping[str, Stored]  # of the plan's nodes, by key


def states(plan: Plan, store: Store) -> dict[str, str]:
    """Return the state of each node by id; quick, for plans that are all cached."""
    return _states(plan, _artifacts(plan, store))


def outlook(plan: Plan, store: Store) -> list[NodeOutlook]:
    """Return what would happen to each node of a plan, with reasons and estimates."""
    return list(look(plan, store).nodes)


def look(plan: Plan, store: Store) -> View:
    """Return what would happen to each node, and what the store knows of this and earlier work."""
    artifacts = _artifacts(plan, store)
    state_of = _states(plan, artifacts)
    stored_of = _stored_of(plan, state_of, store)
    measured = measurements(store)
    past = Past(measured)
    node_of_key = {node.key: node.id for node in plan.nodes}
    found = []
    for node in plan.nodes:
        guess = estimate(node, plan.recipe, past)
        if state_of[node.id] == CACHED:
            found.append(NodeOutlook(node, CACHED, "in the store", (), guess))
            continue
        nearest = stored_of[node.stage].nearest(node.preimage)
        changed = tuple(diff.changes(nearest, node.preimage)) if nearest is not None else None
        reason = _reason(node, changed, state_of, node_of_key)
        found.append(NodeOutlook(node, WILL_RUN, reason, changed or (), guess))
    stored = {key: _stored(artifact) for key, artifact in artifacts.items()}
    return View(found, measured, stored)


def _artifacts(plan: Plan, store: Store) -> dict[str, Artifact]:
    return store.get_all(node.key for node in plan.nodes)


def _states(plan: Plan, artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    return {node.id: CACHED if node.key in artifacts else WILL_RUN for node in plan.nodes}


def _stored(artifact: Artifact) -> Stored:
    manifest = artifact.manifest
    return Stored(manifest.counts, sum(entry.size_bytes for entry in manifest.files))


def _stored_of(plan: Plan, state_of: Mapping[str, str], store: Store) -> dict[str, Preimages]:
    """Return the stored pre-images that the nodes to run are compared with, by stage.

    Of very many, for very many nodes, only the latest: all pairs of them would take hours.
    """
    num_nodes = Counter(node.stage for node in plan.nodes if state_of[node.id] == WILL_RUN)
    found = preimages.by_stage(store, num_nodes.keys()) if num_nodes else {}
    return {
        stage: stored.latest(max(_MIN_COMPARED, _MAX_COMPARED // num_nodes[stage]))
        for stage, stored in found.items()
    }


def _reason(
    node: Node,
    changed: tuple[Change, ...] | None,
    state_of: Mapping[str, str],
    node_of_key: Mapping[str, str],
) -> str:
    """Say in words what moved: the stage's version, a pin, a setting of its own, or an input."""
    if changed is None:
        return "never run before"
    # A report lists the plan among its params: that moved because other nodes did.
    own = [c for c in changed if not c.is_input and str(c.new) not in node_of_key]
    own = [c for c in own if not c.path.startswith("params.plan[")]
    if own:
        first = min(own, key=lambda change: _RANK[_kind(change)])
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        return f"{_words(node, first)}{more}"
    upstream = sorted(name for name in graph.parents(node) if state_of[name] != CACHED)
    if upstream:
        return f"upstream: its input `{upstream[0]}` will run"
    inputs = sorted({node_of_key.get(str(change.new), change.path) for change in changed})
    if inputs:
        return f"upstream: its input `{inputs[0]}` changed"
    return "its artifact has gone from the store"


_RANK = {"version": 0, "own": 1, "prompts": 2, "pins": 3}


def _kind(change: Change) -> str:
    head = change.path.partition(".")[0]
    if head in ("pins", "prompts"):
        return head
    return "version" if head == "version" or change.path.endswith(".version") else "own"


def _words(node: Node, change: Change) -> str:
    kind, rest = _kind(change), change.path.partition(".")[2]
    if kind == "version" and rest:
        what = rest.removesuffix(".version")
        return f"version of the plug-in of `{what}`: {change.old} -> {change.new}"
    if kind == "version":
        return f"stage version: `{node.stage}` is {change.new}, was {change.old}"
    if kind == "prompts":
        return f"pin: the text of the prompt `{rest}` {change.kind}"
    if kind == "pins":
        what = (
            "the data of its source" if rest.partition(".")[0] == "source" else _weights(node, rest)
        )
        return f"pin: {what} {change.kind}"
    return f"own change: {str(change).removeprefix('params.')}"


def _weights(node: Node, rest: str) -> str:
    pins = node.preimage.get("pins", {})
    named = [name for name in pins if rest == name or rest.startswith((f"{name}.", f"{name}["))]
    return f"the weights of `{named[0] if named else rest}`"
