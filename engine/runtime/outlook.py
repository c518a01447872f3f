"""What a run would do: a plan joined with a store. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.plan import diff, graph
from engine.plan.diff import Change
from engine.plan.estimate import Estimate, Measurement, estimate
from engine.plan.stage import Node, Plan
from engine.runtime import events, runs
from engine.runtime.store import Store

CACHED = "cached"
WILL_RUN = "will run"
_RUNS_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class NodeOutlook:
    """What would happen to one node, and why."""

    node: Node
    state: str  # CACHED or WILL_RUN
    reason: str
    changes: tuple[Change, ...] = ()  # against the nearest stored pre-image of the same stage
    estimate: Estimate | None = None


def states(plan: Plan, store: Store) -> dict[str, str]:
    """Return the state of each node by id; quick, for plans that are all cached."""
    return {node.id: CACHED if store.get(node.key) else WILL_RUN for node in plan.nodes}


def outlook(plan: Plan, store: Store) -> list[NodeOutlook]:
    """Return what would happen to each node of a plan, with reasons and estimates."""
    state_of = states(plan, store)
    stored = _preimages_by_stage(store) if WILL_RUN in state_of.values() else {}
    measured = measurements(store)
    node_of_key = {node.key: node.id for node in plan.nodes}
    found = []
    for node in plan.nodes:
        guess = estimate(node, plan.recipe, measured)
        if state_of[node.id] == CACHED:
            found.append(NodeOutlook(node, CACHED, "in the store", (), guess))
            continue
        nearest = diff.nearest(node.preimage, stored.get(node.stage, ()))
        changed = tuple(diff.changes(nearest, node.preimage)) if nearest is not None else None
        reason = _reason(node, changed, state_of, node_of_key)
        found.append(NodeOutlook(node, WILL_RUN, reason, changed or (), guess))
    return found


def measurements(store: Store) -> list[Measurement]:
    """Return what nodes took in the newest runs, in order of time."""
    found = []
    worked = [run for run in runs.all_runs(store) if (run.path / "logs").exists()]
    for run in worked[-_RUNS_LOOKED_AT:]:
        log, _ = events.read(run.events_path)
        for event in log:
            if isinstance(event, events.NodeFinished):
                found.append(_measurement(run.facts()["recipe"], run, event))
    return found


def _measurement(recipe: str, run: runs.Run, event: events.NodeFinished) -> Measurement:
    stage = event.node.split("/", maxsplit=1)[0]
    return Measurement(recipe, event.node, stage, event.wall_s, event.peak_memory_gb)


def _preimages_by_stage(store: Store) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for manifest in store.manifests():
        found[manifest.stage].append(manifest.preimage)
    return found


def _reason(
    node: Node,
    changed: tuple[Change, ...] | None,
    state_of: Mapping[str, str],
    node_of_key: Mapping[str, str],
) -> str:
    if changed is None:
        return "never run before"
    # A report names the keys of other nodes among its params: they moved because those nodes did.
    own = [c for c in changed if not c.is_input and str(c.new) not in node_of_key]
    if own:
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        return f"{own[0]}{more}"
    upstream = sorted(name for name in graph.parents(node) if state_of[name] != CACHED)
    if upstream:
        return f"its input `{upstream[0]}` will run"
    inputs = sorted({node_of_key.get(str(change.new), change.path) for change in changed})
    return f"its input `{inputs[0]}` changed" if inputs else "its artifact has gone from the store"
