from __future__ import annotations

from engine.plan.diff import Change, changes, nearest


def test_a_changed_leaf_is_named_by_its_path():
    old = {"params": {"training": {"learning_rate": 1e-4, "epochs": 1}}}
    new = {"params": {"training": {"learning_rate": 2e-4, "epochs": 1}}}

    assert changes(old, new) == [
        Change("params.training.learning_rate", "changed", 1e-4, 2e-4),
    ]
    assert str(changes(old, new)[0]) == "params.training.learning_rate: 0.0001 -> 0.0002"


def test_list_items_that_came_or_went_are_named():
    found = changes({"filters": ["a", "b"]}, {"filters": ["a"]})

    assert [str(change) for change in found] == ["filters[1]: removed 'b'"]


def test_one_and_true_are_not_the_same():
    assert changes({"x": 1}, {"x": True}) == [Change("x", "changed", 1, True)]


def test_an_integer_and_an_equal_float_are_the_same():
    assert changes({"x": 1}, {"x": 1.0}) == []


def test_the_nearest_preimage_differs_in_the_fewest_parameters():
    new = {"stage": "train", "params": {"a": 1, "b": 1}, "inputs": {"rows": {"rows": "k1"}}}
    other_input = {**new, "inputs": {"rows": {"rows": "k2"}}}
    other_params = {**new, "params": {"a": 2, "b": 1}}
    other_stage = {**new, "stage": "mix"}

    assert nearest(new, [other_stage, other_params, other_input]) == other_input


def test_nothing_is_near_when_the_stage_never_ran():
    assert nearest({"stage": "train"}, [{"stage": "mix"}]) is None


def test_a_preimage_that_differs_in_most_values_is_not_near():
    new = {"stage": "collect", "params": {str(number): "new" for number in range(10)}}
    other = {"stage": "collect", "params": {str(number): "old" for number in range(10)}}
    near = {"stage": "collect", "params": new["params"] | {"1": "old"}}

    assert nearest(new, [other]) is None
    assert nearest(new, [other, near]) == near


def test_few_values_may_all_differ():
    new, old = ({"stage": "count", "params": {"rows": rows, "note": rows}} for rows in (1, 2))

    assert nearest(new, [old]) == old
