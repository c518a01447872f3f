from __future__ import annotations

from engine.plan import compare
from engine.plan.stage import Plan
from tests.runtime.fake_stages import PlanBuilder


def chain(num_rows: int = 3, *more: str) -> Plan:
    build = PlanBuilder()
    build.add("count", num_rows=num_rows)
    build.add("double", "count")
    for name in more:
        build.add(f"double/{name}", "double")
    return build.plan()


def states(old: Plan, new: Plan) -> dict[str, str]:
    return {node.id: node.state for node in compare.compare(old, new).nodes}


def test_equal_plans_keep_every_node():
    assert states(chain(), chain()) == {"count": "unchanged", "double": "unchanged"}


def test_a_change_is_told_from_what_follows_from_it():
    found = compare.compare(chain(3), chain(4, "a"))

    assert [(node.id, node.state, node.roots) for node in found.nodes] == [
        ("count", "own change", ()),
        ("double", "upstream", ("count",)),
        ("double/a", "added", ("count",)),
    ]
    assert [str(change) for change in found.nodes[0].changes] == ["params.num_rows: 3 -> 4"]


def test_a_node_that_has_gone_is_removed():
    assert states(chain(3, "a"), chain(3)) == {
        "count": "unchanged",
        "double": "unchanged",
        "double/a": "removed",
    }


def test_a_node_with_another_id_but_the_same_key_is_kept():
    assert states(chain(3, "a"), chain(3, "b"))["double/b"] == "unchanged"
