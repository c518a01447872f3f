from __future__ import annotations

import json
from dataclasses import replace

import jsonschema_rs
import pytest

from engine import package_data
from engine.plan import graph
from engine.plan.stage import Plan
from tests.runtime.fake_stages import PlanBuilder


def diamond() -> Plan:
    build = PlanBuilder()
    build.add("count")
    build.add("double/left", "count")
    build.add("double/right", "count", num_rows=4)
    build.add("double/both", "double/left", "double/right")
    return build.plan()


def test_a_plan_survives_json_and_fits_its_schema():
    written = json.loads(json.dumps(graph.to_json(diamond())))
    schema = json.loads((package_data.folder("schemas") / "plan.schema.json").read_text())

    jsonschema_rs.validate(schema, written)
    assert graph.from_json(written) == diamond()


def test_equal_plans_have_equal_digests():
    assert graph.digest(diamond()) == graph.digest(diamond())


def test_an_input_that_stands_behind_its_user_is_refused():
    plan = Plan("fake", tuple(reversed(diamond().nodes)))

    with pytest.raises(ValueError, match="`double/both` reads `double/left`, which does not come"):
        graph.check(plan)


def test_two_nodes_of_one_name_are_refused():
    plan = Plan("fake", (diamond().nodes[0], diamond().nodes[0]))

    with pytest.raises(ValueError, match="`count` stands in the plan twice"):
        graph.check(plan)


def test_a_key_that_does_not_belong_to_its_preimage_is_refused():
    plan = Plan("fake", (replace(diamond().nodes[0], key="0" * 64),))

    with pytest.raises(ValueError, match="key of node `count` is not the digest"):
        graph.check(plan)


def test_a_plan_of_another_format_is_refused():
    with pytest.raises(ValueError, match="plan format 2 is not 1"):
        graph.from_json({"plan": 2})


def test_one_node_brings_its_ancestors_and_nothing_else():
    part = graph.with_ancestors(diamond(), ["double/left"])

    assert [node.id for node in part.nodes] == ["count", "double/left"]


def test_descendants_are_all_that_need_a_node():
    assert graph.descendants(diamond(), "double/left") == {"double/both"}
