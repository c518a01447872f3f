from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.plan.stage import Needs, Node, Plan
from engine.runtime.scheduler import (
    NOTHING,
    Capacity,
    Demand,
    Frontier,
    Placement,
    next_to_start,
    num_parts,
    num_parts_worth,
    urgency,
)
from tests.runtime.fake_stages import PlanBuilder

LIGHT, MODEL, TRAINING = Needs(), Needs(accelerator=True), Needs(all_threads=True)
MODEL_TRAINING = Needs(accelerator=True, all_threads=True)


def node(name: str, needs: Needs = LIGHT) -> Node:
    build = PlanBuilder()
    build.add(name, stage="count")
    return replace(build.nodes[0], needs=needs)


def ids(frontier: Frontier) -> list[str]:
    return [found.id for found in frontier.ready()]


def test_the_longest_remaining_chain_goes_first():
    build = PlanBuilder()
    build.add("count/short")
    build.add("count/long")
    build.add("double/1", "count/long")
    build.add("double/2", "double/1")
    plan = build.plan()

    assert ids(Frontier(plan)) == ["count/long", "count/short"]


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

    frontier = Frontier(plan)
    frontier.finish("count/a")
    assert ids(frontier) == ["count/b"]
    frontier.finish("count/b")
    assert ids(frontier) == ["double"]


def test_a_node_that_is_over_before_its_inputs_is_not_offered_again():
    build = PlanBuilder()
    build.add("count")
    build.add("double/1", "count")
    build.add("double/2", "double/1")
    frontier = Frontier(build.plan())
    frontier.finish("double/1")  # cached, while what it was made of was cleared away
    frontier.finish("count")
    assert ids(frontier) == ["double/2"]
    frontier.undo("count")
    frontier.finish("count")
    assert ids(frontier) == ["double/2"]


def test_a_result_that_turns_out_useless_takes_back_what_it_made_ready():
    build = PlanBuilder()
    build.add("count")
    build.add("double", "count")
    frontier = Frontier(build.plan())
    frontier.finish("count")
    frontier.undo("count")
    assert ids(frontier) == ["count"]
    frontier.finish("count")
    assert ids(frontier) == ["double"]


def test_light_nodes_fill_the_cores():
    running = [Placement(1)]

    assert next_to_start([node("a")], running, Capacity(2)) == (node("a"), Placement(1))
    assert next_to_start([node("a")], running, Capacity(1)) is None


def test_training_gets_all_cores_but_one_and_is_not_overtaken_while_it_waits():
    training = node("train", TRAINING)

    assert next_to_start([training], [], Capacity(4)) == (training, Placement(3))
    assert next_to_start([training, node("a")], [Placement(2)], Capacity(4)) is None


def test_less_urgent_training_lets_light_nodes_pass():
    chosen = next_to_start([node("a"), node("train", TRAINING)], [Placement(2)], Capacity(4))

    assert chosen == (node("a"), Placement(1))


def test_each_gpu_has_one_node_at_a_time():
    capacity = Capacity(8, num_gpus=2)
    first = next_to_start([node("a", MODEL)], [], capacity)
    second = next_to_start([node("b", MODEL)], [first[1]], capacity)
    both = [first[1], second[1]]

    assert (first[1].gpus, second[1].gpus) == ((0,), (1,))
    assert next_to_start([node("c", MODEL)], both, capacity) is None
    assert next_to_start([node("c", MODEL), node("d")], both, capacity) == (
        node("d"),
        Placement(1),
    )


def test_training_on_a_gpu_leaves_cores_to_others():
    chosen = next_to_start([node("t", MODEL_TRAINING)], [], Capacity(8, num_gpus=1))

    assert chosen == (node("t", MODEL_TRAINING), Placement(4, gpus=(0,)))


def test_training_gets_every_gpu_and_no_model_takes_one_from_it_while_it_waits():
    capacity = Capacity(8, num_gpus=2)
    training = node("t", MODEL_TRAINING)

    assert next_to_start([training], [], capacity) == (training, Placement(2, gpus=(0, 1)))
    assert next_to_start([training, node("b", MODEL)], [Placement(2, gpus=(0,))], capacity) is None


def test_a_model_gets_the_smallest_gpu_that_holds_it():
    capacity = Capacity(8, num_gpus=3, gpu_memory_gb=(80, 24, 80))
    demands = {"small": Demand(gpu_memory_gb=10), "large": Demand(gpu_memory_gb=60)}

    small = next_to_start([node("count")], [], capacity, demands)
    assert small[1].gpus == ()
    for name, gpus in (("small", (1,)), ("large", (0,)), ("unknown", (1,))):
        model = replace(node("count", MODEL), id=name)
        assert next_to_start([model], [], capacity, demands)[1].gpus == gpus


def test_a_model_larger_than_every_gpu_gets_a_largest_one():
    capacity = Capacity(8, num_gpus=2, gpu_memory_gb=(24, 80))
    demands = {"count": Demand(gpu_memory_gb=200)}

    assert next_to_start([node("count", MODEL)], [], capacity, demands)[1].gpus == (1,)


def test_a_model_that_is_split_or_copied_gets_its_gpus_on_one_machine():
    capacity = Capacity(16, num_gpus=6, machines=[(8, 2), (8, 4)])
    demands = {"count": Demand(num_gpus=4)}
    model = node("count", MODEL)

    assert next_to_start([model], [], capacity, demands)[1].gpus == (2, 3, 4, 5)
    assert next_to_start([model], [Placement(1, gpus=(3,))], capacity, demands) is None
    assert next_to_start([model], [Placement(1, gpus=(1,))], capacity, demands) is not None


def test_a_model_that_wants_more_gpus_than_there_are_gets_those_that_are():
    chosen = next_to_start(
        [node("count", MODEL)], [], Capacity(8, num_gpus=2), {"count": Demand(num_gpus=8)}
    )

    assert chosen[1].gpus == (0, 1)


def test_a_model_that_answers_elsewhere_takes_no_gpu_and_is_asked_by_one_process():
    capacity, elsewhere = Capacity(16, num_gpus=2), Demand(num_gpus=0)
    model = node("count", Needs(accelerator=True, sharded=True))
    busy = [Placement(1, gpus=(0,)), Placement(1, gpus=(1,))]

    assert next_to_start([model], busy, capacity, {"count": elsewhere}) == (model, Placement(1))
    assert num_parts(model, 1, [], capacity, elsewhere) == 1
    assert num_parts(model, 1, [], Capacity(64), elsewhere) == 1


def test_nodes_run_beside_each_other_only_while_their_memory_fits():
    capacity = Capacity(8, memory_gb=10)
    demands = {"count": Demand(memory_gb=6)}
    running = [Placement(1, memory_gb=6)]

    assert next_to_start([node("count")], [], capacity, demands)[1].memory_gb == 6
    assert next_to_start([node("count")], running, capacity, demands) is None


def test_a_node_that_needs_more_memory_than_there_is_runs_alone():
    demands = {"count": Demand(memory_gb=60)}

    assert next_to_start([node("count")], [], Capacity(8, memory_gb=10), demands) is not None


def test_parts_take_a_fair_share_of_what_is_free():
    sharded, plain = node("count", Needs(sharded=True)), node("count")
    model = node("count", Needs(accelerator=True, sharded=True))

    assert num_parts(plain, 1, [], Capacity(8), NOTHING) == 1
    assert num_parts(sharded, 1, [], Capacity(8), NOTHING) == 8
    assert num_parts(sharded, 2, [Placement(2)], Capacity(8), NOTHING) == 3
    assert num_parts(sharded, 9, [], Capacity(8), NOTHING) == 1
    assert num_parts(sharded, 1, [], Capacity(8, memory_gb=10), Demand(memory_gb=4)) == 2
    assert num_parts(model, 1, [], Capacity(16, num_gpus=4), NOTHING) == 4
    assert num_parts(model, 1, [], Capacity(16, num_gpus=4), Demand(num_gpus=2)) == 2
    two_machines = Capacity(16, num_gpus=6, machines=[(8, 3), (8, 3)])
    assert num_parts(model, 1, [], two_machines, Demand(num_gpus=2)) == 2


def test_few_rows_are_not_worth_several_processes():
    assert [num_parts_worth(num) for num in (0, 48, 511, 512, 10_000)] == [1, 1, 1, 2, 39]
    assert num_parts_worth(None) > 1000


@pytest.mark.alone
def test_a_plan_of_ten_thousand_nodes_is_scheduled_quickly():
    build = PlanBuilder()
    build.add("count")
    base = build.nodes[0]
    nodes = tuple(
        replace(base, id=str(i), inputs={"rows": {"a": str(i - 1)}} if i % 10 else {})
        for i in range(10_000)
    )
    before = time.process_time()
    frontier = Frontier(Plan("big", nodes))
    order = []
    while (found := next_to_start(frontier.ready(), [], Capacity(1))) is not None:
        order.append(found[0].id)
        frontier.finish(found[0].id)

    assert len(set(order)) == 10_000
    assert time.process_time() - before < 2


@st.composite
def _nodes(draw: st.DrawFn) -> list[Node]:
    """Draw a plan's nodes with any needs; each reads some of those before it."""
    build = PlanBuilder()
    names: list[str] = []
    for number in range(draw(st.integers(1, 12))):
        inputs = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else []
        names.append(build.add(f"double/{number}", *inputs, stage="double"))
    flags = st.builds(Needs, st.booleans(), st.booleans(), st.booleans())
    return [replace(found, needs=draw(flags)) for found in build.nodes]


@given(
    _nodes(),
    st.integers(1, 4),
    st.integers(0, 3),
    st.none() | st.integers(1, 64),
    st.none() | st.floats(0.1, 10),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 4)), min_size=12, max_size=12),
    st.randoms(use_true_random=False),
)
def test_any_plan_ends_on_any_machine_and_no_gpu_has_two_owners(
    nodes, threads, num_gpus, on_one_machine, memory_gb, peaks, random
):
    there = [] if on_one_machine is None else [(max(threads, on_one_machine), num_gpus)]
    capacity = Capacity(threads, num_gpus, memory_gb, machines=there)
    demands = {
        found.id: Demand(memory_gb=gb, num_gpus=gpus)
        for found, (gb, gpus) in zip(nodes, peaks, strict=False)
    }
    frontier = Frontier(Plan("any", tuple(nodes)))
    running: dict[str, Placement] = {}
    over: list[str] = []
    while len(over) < len(nodes):
        while found := next_to_start(frontier.ready(), running.values(), capacity, demands):
            frontier.take(found[0].id)
            running[found[0].id] = found[1]
        gpus = [gpu for place in running.values() for gpu in place.gpus]
        assert len(gpus) == len(set(gpus))
        assert all(gpu < num_gpus for gpu in gpus)
        assert sum(place.threads for place in running.values()) <= threads
        if memory_gb is not None and len(running) > 1:
            assert sum(place.memory_gb for place in running.values()) <= memory_gb
        assert running, "nothing runs and not all is over: a deadlock"
        ended = random.choice(sorted(running))
        del running[ended]
        over.append(ended)
        frontier.finish(ended)

    parents = {found.id: set(found.inputs.get("rows", {}).values()) for found in nodes}
    assert all(parents[name] <= set(over[:place]) for place, name in enumerate(over))


def test_training_takes_the_gpus_and_cores_of_one_machine():
    two = Capacity(24, 6, machines=[(8, 2), (16, 4)])
    train = node("train", MODEL_TRAINING)

    assert next_to_start([train], [], two) == (train, Placement(2, (2, 3, 4, 5)))
    assert next_to_start([node("train", TRAINING)], [], two)[1] == Placement(15)


def test_a_second_training_takes_another_machine_of_the_same_size():
    two = Capacity(20, 8, machines=[(10, 4), (10, 4)])
    busy = [Placement(2, (0, 1, 2, 3))]

    assert next_to_start([node("train", MODEL_TRAINING)], busy, two)[1].gpus == (4, 5, 6, 7)


def test_a_machine_that_has_left_gets_no_work():
    left = Capacity(10, 4, busy_gpus=frozenset((0, 1)), machines=[(0, 2), (10, 2)])

    assert next_to_start([node("model", MODEL)], [], left)[1] == Placement(3, (2,))
    assert next_to_start([node("train", MODEL_TRAINING)], [], left)[1].gpus == (2, 3)
