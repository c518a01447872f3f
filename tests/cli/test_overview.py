from __future__ import annotations

from collections.abc import Sequence

from engine.cli.overview import Overview
from engine.plan.stage import Node, Plan
from engine.runtime import events

COSTS = {"cpu_s": 1.5, "peak_memory_gb": 0.3}


def plan(*arms: str) -> Plan:
    """Return a shared `curate`, and `filter` and `train` for each arm."""
    nodes = [node("curate", "count", arms)]
    for number, arm in enumerate(arms):
        suffix = f"@{arm}" if number else ""
        nodes.append(node(f"filter{suffix}", "count", (arm,), "curate"))
        nodes.append(node(f"train{suffix}", "slow", (arm,), f"filter{suffix}"))
    return Plan("fake", tuple(nodes))


def node(node_id: str, stage: str, arms: tuple[str, ...], *inputs: str) -> Node:
    return Node(
        id=node_id,
        stage=stage,
        params={},
        inputs={"rows": {name: name for name in inputs}},
        key=node_id,
        preimage={},
        seed=7,
        prompts={},
        origin={},
        arms=arms,
    )


def started(found: Plan, time: float = 0.0) -> events.RunStarted:
    nodes = tuple(node.id for node in found.nodes)
    return events.RunStarted(time=time, run="r", recipe="fake", nodes=nodes, holder={})


def began(node: str, time: float = 0.0) -> events.NodeStarted:
    return events.NodeStarted(time=time, node=node, pid=1)


def ended(node: str, time: float, wall_s: float, **counts: float) -> events.NodeFinished:
    return events.NodeFinished(time=time, node=node, wall_s=wall_s, counts=counts, **COSTS)


def seen(found: Overview, happened: Sequence[events.Event]) -> Overview:
    for event in happened:
        found.add(event)
    return found


def test_a_shared_node_counts_in_every_arm():
    found = plan("one", "two")
    run = seen(
        Overview(found),
        [started(found), began("curate"), ended("curate", 9.0, 9.0, pairs=40), began("filter@two")],
    )

    assert {name: arm.num_good for name, arm in run.arms.items()} == {"one": 1, "two": 1}
    assert run.arms["one"].to_json() == {
        "name": "one",
        "states": {"ran": 1, "waiting": 2},
        "funnel": {"pairs": 40},
    }
    assert dict(+run.arms["two"].states) == {"ran": 1, "running": 1, "waiting": 1}
    assert list(run.lively) == ["filter@two"]


def test_counts_of_a_cached_node_come_from_the_store():
    found = plan("main")
    run = seen(
        Overview(found, lambda node: {"pairs": 7, "other": 1}),
        [started(found), events.NodeCached(time=1.0, node="curate", reason="in the store")],
    )

    assert run.arms["main"].funnel == {"pairs": 7}


def test_a_node_that_waits_names_what_it_lacks():
    found = plan("main")
    run = seen(Overview(found), [started(found), began("curate"), ended("curate", 9.0, 9.0)])

    assert run.waits_for(found.node("filter")) == []
    assert run.waits_for(found.node("train")) == ["filter"]


def test_time_left_is_a_lower_bound_while_a_node_has_no_time():
    found = plan("main")
    happened = [started(found), began("curate")]

    known = seen(Overview(found, expected={"curate": 10.0, "filter": 5.0}), happened)
    assert known.time_left(0.0) == "more than 15 s left"
    assert seen(Overview(found), happened).time_left(0.0) == ""


def test_time_left_is_that_of_the_longest_chain():
    found = plan("one", "two")
    expected = {node.id: 10.0 for node in found.nodes} | {"train@two": 100.0}
    run = seen(Overview(found, expected=expected), [started(found), began("curate", 0.0)])
    run = seen(run, [ended("curate", 10.0, 10.0), began("filter", 10.0), began("filter@two", 10.0)])

    assert run.time_left(12.0) == "about 1 min 48 s left"


def test_time_left_is_all_work_shared_out_as_it_is_now():
    found = plan("one", "two", "three")
    run = seen(
        Overview(found, expected={node.id: 10.0 for node in found.nodes}),
        [started(found), events.NodeCached(time=0.0, node="curate", reason=""), began("filter")],
    )

    assert run.time_left(0.0) == "about 1 min 00 s left"


def test_nodes_of_a_stage_that_ended_tell_how_long_the_others_take():
    found = plan("one", "two")
    happened = [started(found), began("curate"), ended("curate", 4.0, 4.0)]
    happened += [began("filter", 4.0), ended("filter", 8.0, 4.0), began("train", 8.0)]
    happened += [ended("train", 38.0, 30.0), began("filter@two", 38.0)]

    assert seen(Overview(found), happened).time_left(38.0) == "about 34 s left"


def test_progress_tells_better_than_the_past():
    found = plan("main")
    run = seen(
        Overview(found, expected={node.id: 1000.0 for node in found.nodes}),
        [started(found)]
        + [events.NodeCached(time=0.0, node=name, reason="") for name in ("curate", "filter")]
        + [began("train")]
        + [
            events.NodeProgress(time=float(t), node="train", done=t, total=60, unit="steps")
            for t in range(21)
        ],
    )

    assert run.time_left(20.0) == "about 40 s left"


def test_a_stopped_run_has_nothing_at_work():
    found = plan("main")
    run = seen(
        Overview(found), [started(found), began("curate"), events.RunStopped(time=1.0, signal=2)]
    )

    assert (run.state, list(run.lively)) == ("stopped", [])
    assert dict(+run.total().states) == {"stopped": 1, "waiting": 2}


def test_an_event_of_a_node_that_is_not_planned_is_let_be():
    found = plan("main")
    run = seen(Overview(found), [began("teleport"), ended("teleport", 2.0, 2.0)])

    assert run.total().num == 3
