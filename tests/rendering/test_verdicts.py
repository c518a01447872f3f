from __future__ import annotations

from engine.rendering import verdicts
from tests.rendering.building import score


def test_an_interval_above_zero_is_a_gain():
    assert verdicts.sentence(score("b", 1.0, 3.0)) == "a gain of 2.0 points, from 30.0 to 32.0"


def test_an_interval_below_zero_is_a_loss():
    assert verdicts.sentence(score("b", -3.0, -1.0)) == "a loss of 2.0 points, from 30.0 to 28.0"


def test_an_interval_that_touches_zero_is_no_gain_however_large_the_difference():
    row = score("b", 0.0, 60.0)

    assert verdicts.sentence(row) == "no gain shown, from 30.0 to 60.0"
    assert "includes zero" in verdicts.evidence(row)


def test_equal_models_are_called_equal():
    row = score("b", 0.0, 0.0)

    assert verdicts.sentence(row) == "no difference at all, from 30.0 to 30.0"


def test_the_evidence_names_items_images_and_unparsed_answers():
    row = score("b", 1.0, 3.0, num_clusters=1, unparsed_base=7)

    assert verdicts.evidence(row) == (
        "95 % interval of the difference +1.0 to +3.0; 40 items on 1 image; "
        "answers that could not be parsed, counted as wrong: base 7, adapted 0."
    )


def test_only_cut_benchmarks_make_a_smoke_run():
    assert verdicts.smoke(None) == ""
    assert "first 40 items" in verdicts.smoke(40)


def test_a_general_benchmark_is_called_one():
    row = score("b", 1.0, 3.0)

    assert verdicts.title(row) == "b"
    assert verdicts.title(row | {"panel": "general"}) == "b (general)"
