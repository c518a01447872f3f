from __future__ import annotations

from dataclasses import replace

from engine.plan.stage import Needs, Node, Plan
from engine.runtime.scheduler import Capacity, Placement, next_to_start, ready_nodes, urgency
from tests.runtime.fake_stages import PlanBuilder

LIGHT, MODEL, TRAINING = Needs(), Needs(accelerator=True), Needs(all_threads=True)
MODEL_TRAINING = Needs(accelerator=True, all_threads=True)


def node(name: str, needs: Needs = LIGHT) -> Node:
    build = PlanBuilder()
    build.add(name, stage="count")
    return replace(build.nodes[0], needs=needs)


def test_the_longest_remaining_chain_goes_first():
    build = PlanBuilder()
    build.add("count/short")
    build.add("count/long")
    build.add("double/1", "count/long")
    build.add("double/2", "double/1")
    plan = build.plan()

    ready = ready_nodes(plan, set(), set(), urgency(plan))

    assert [found.id for found in ready] == ["count/long", "count/short"]


def test_a_chain_that_trains_is_more_urgent_than_a_longer_light_one():
    build = PlanBuilder()
    build.add("count/light")
    build.add("double/light", "count/light")
    build.add("double/light2", "double/light")
    build.add("count/data")
    build.add("environment", "count/data")  # wants all threads
    plan = build.plan()

    assert urgency(plan)["count/data"] > urgency(plan)["count/light"]


def test_a_node_is_ready_only_when_all_its_inputs_are_done():
    build = PlanBuilder()
    build.add("count/a")
    build.add("count/b")
    build.add("double", "count/a", "count/b")
    plan = build.plan()

    waiting = ready_nodes(plan, {"count/a"}, {"count/b"}, urgency(plan))
    ready = ready_nodes(plan, {"count/a", "count/b"}, {"count/a", "count/b"}, urgency(plan))

    assert waiting == []
    assert [found.id for found in ready] == ["double"]


def test_light_nodes_fill_the_cores():
    running = {"x": Placement(1)}

    assert next_to_start([node("a")], running, Capacity(2)) == (node("a"), Placement(1))
    assert next_to_start([node("a")], running, Capacity(1)) is None


def test_training_gets_all_cores_but_one_and_is_not_overtaken_while_it_waits():
    training = node("train", TRAINING)

    assert next_to_start([training], {}, Capacity(4)) == (training, Placement(3))
    assert next_to_start([training, node("a")], {"x": Placement(2)}, Capacity(4)) is None


def test_less_urgent_training_lets_light_nodes_pass():
    chosen = next_to_start([node("a"), node("train", TRAINING)], {"x": Placement(2)}, Capacity(4))

    assert chosen == (node("a"), Placement(1))


def test_each_gpu_has_one_node_at_a_time():
    capacity = Capacity(8, num_gpus=2)
    first = next_to_start([node("a", MODEL)], {}, capacity)
    second = next_to_start([node("b", MODEL)], {"a": first[1]}, capacity)
    both = {"a": first[1], "b": second[1]}

    assert (first[1].gpu, second[1].gpu) == (0, 1)
    assert next_to_start([node("c", MODEL)], both, capacity) is None
    assert next_to_start([node("c", MODEL), node("d")], both, capacity) == (
        node("d"),
        Placement(1),
    )


def test_training_on_a_gpu_leaves_cores_to_others():
    chosen = next_to_start([node("t", MODEL_TRAINING)], {}, Capacity(8, num_gpus=1))

    assert chosen == (node("t", MODEL_TRAINING), Placement(4, gpu=0))


def test_a_plan_of_ten_thousand_nodes_is_ranked_quickly():
    build = PlanBuilder()
    build.add("count")
    base = build.nodes[0]
    nodes = tuple(
        replace(base, id=str(i), inputs={"rows": {"a": str(i - 1)}} if i else {})
        for i in range(10_000)
    )

    assert urgency(Plan("big", nodes))["0"] == 10_000
