from __future__ import annotations

from engine.recipe.changes import applied, changes

SIZE = {"use": "image_size", "min_side_px": 56}
LENGTH = {"use": "caption_length", "min_words": 3}


def paths(old, new):
    return [(change.path, change.kind) for change in changes(old, new)]


def test_equal_recipes_have_no_change():
    assert (
        changes(
            {"seed": 1, "filters": {"pairs": [SIZE]}}, {"filters": {"pairs": [SIZE]}, "seed": 1}
        )
        == []
    )


def test_a_value_is_named_by_its_path():
    (found,) = changes({"training": {"learning_rate": 0.1}}, {"training": {"learning_rate": 0.2}})

    assert (found.path, found.kind, found.old, found.new) == (
        "training.learning_rate",
        "changed",
        0.1,
        0.2,
    )


def test_a_plugin_in_front_does_not_change_those_behind_it():
    assert paths({"pairs": [LENGTH]}, {"pairs": [SIZE, LENGTH]}) == [("pairs[image_size]", "added")]


def test_a_setting_of_a_plugin_is_named_by_the_plugin():
    after = {**SIZE, "min_side_px": 32}

    assert paths({"pairs": [LENGTH, SIZE]}, {"pairs": [LENGTH, after]}) == [
        ("pairs[image_size].min_side_px", "changed")
    ]


def test_two_plugins_of_one_name_are_told_apart_by_number():
    second = {**SIZE, "min_side_px": 99}

    assert paths({"pairs": [SIZE, SIZE]}, {"pairs": [SIZE, second]}) == [
        ("pairs[image_size 2].min_side_px", "changed")
    ]


def test_another_order_is_a_move():
    assert paths({"pairs": [SIZE, LENGTH]}, {"pairs": [LENGTH, SIZE]}) == [
        ("pairs[caption_length]", "moved")
    ]


def test_another_plugin_is_one_change():
    old = {"source": {"use": "pocket", "world": "cells"}}
    new = {"source": {"use": "hub", "dataset": "a/b"}}

    assert paths(old, new) == [("source", "changed")]


def test_true_is_not_one():
    assert paths({"a": True}, {"a": 1}) == [("a", "changed")]


def test_each_change_can_be_made_alone():
    old = {
        "seed": 1,
        "filters": {"pairs": [SIZE, LENGTH], "tasks": []},
        "generator": {"model": "m"},
    }
    new = {"seed": 2, "filters": {"pairs": [LENGTH], "tasks": [SIZE]}, "matrix": {"a": {}}}

    for change in changes(old, new):
        (left,) = changes(old, applied(old, change))
        assert (left.path, left.kind, left.new) == (change.path, change.kind, change.new)


def test_all_changes_together_give_the_new_recipe():
    old = {"a": {"x": 1, "y": [1, 2]}, "pairs": [SIZE]}
    new = {"a": {"x": 2, "y": [2]}, "pairs": [{**SIZE, "min_side_px": 1}, LENGTH]}

    made = old
    for change in changes(old, new):
        made = applied(made, change)
    assert made == new
