from __future__ import annotations

from dataclasses import replace

import pytest

from engine.forecast import DEVICES, Fleet, forecasts, wall_of
from engine.plan.estimate import Figure, Forecast, Measurement, Stored
from engine.plan.stage import Plan
from tests.forecast.planning import plan_of


def value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


def measured(recipe: str, node: str, wall_s: float = 60.0, **counts: float) -> Measurement:
    return Measurement(recipe, node, node.split("/")[0], wall_s, 1.0, "r-1", counts)


def test_rows_flow_from_the_recipe_to_the_training():
    found = forecasts(plan_of("quickstart"), [])

    assert found["collect"].rows == Figure(1500, "recipe: num_rows")
    assert value(found["collect/pocket_cells"].rows) == 600  # four questions a scene
    assert value(found["collect/pocket_cells"].images) == 150
    assert value(found["generate"].rows) == 1500
    assert value(found["filter"].rows) == 450
    assert value(found["mix"].rows) == 1500
    assert value(found["train"].rows) == 7 * 1500
    assert value(found["evaluate.answers/base/pocket_cells"].rows) == 600


def test_a_bound_says_that_it_is_one_and_an_assumption_names_its_source():
    found = forecasts(plan_of("quickstart"), [])

    assert found["curate"].rows is not None
    assert found["curate"].rows.basis.startswith("at most the 1,500 rows of `collect`, less what")
    assert found["filter"].rows is not None
    assert found["filter"].rows.basis.endswith("assumed from arXiv 2411.19930 D")


def test_shares_of_an_earlier_run_replace_assumptions():
    past = [
        measured("quickstart", "curate", pairs=900, quarantine=100),
        measured("quickstart", "generate", num_pairs=900, tasks=450),
        measured("quickstart", "filter", kept=45, dropped=405),
    ]
    found = forecasts(plan_of("quickstart"), past)

    assert found["curate"].rows == Figure(1350, "90% of 1,500 rows of `collect`, as run r-1 kept")
    assert found["generate"].rows == Figure(675, "50% of 1,350 pairs of `curate`, as run r-1 wrote")
    assert value(found["filter"].rows) == 68


def test_what_is_stored_is_counted():
    plan = plan_of("quickstart")
    stored = {plan.node("filter").key: Stored({"kept": 77}, 5_000_000_000)}
    found = forecasts(plan, [], stored=stored)

    assert found["filter"].rows == Figure(77, "counted: in the store")
    assert found["filter"].disk_gb == Figure(5.0, "counted: in the store")


def test_tokens_of_a_step_that_was_measured_replace_assumptions():
    past = [measured("quickstart", "train", steps=100, tokens=60_000)]
    found = forecasts(plan_of("quickstart"), past)["train"]

    assert found.tokens == Figure(600 * 1313, "measured: 600 tokens a step in run r-1")


def test_hours_of_an_earlier_run_grow_with_the_rows():
    past = [measured("quickstart", "collect", 3600.0, rows=750)]
    found = forecasts(plan_of("quickstart"), past)["collect"]

    assert found.wall_h == Figure(2.0, "measured: run r-1, scaled from 750 to 1,500")


def test_a_far_step_from_a_small_run_is_called_an_assumption():
    past = [measured("quickstart", "collect", 36.0, rows=15)]
    found = forecasts(plan_of("quickstart"), past)["collect"]

    assert found.wall_h is not None
    assert found.wall_h.basis.endswith("scaled from 15 to 1,500, assumed to grow in step")


def test_another_node_stands_in_only_where_no_model_runs():
    past = [measured("other", "collect/x", 36.0, rows=150), measured("other", "train/y", 9.0)]
    found = forecasts(plan_of("quickstart"), past)

    assert found["collect"].wall_h is not None
    assert found["collect"].wall_h.basis.startswith("measured: `collect/x` of run r-1")
    assert found["train"].wall_h is None


def test_without_a_device_nothing_is_said_about_hours():
    found = forecasts(plan_of("biomed"), [])

    assert all(one.wall_h is None and one.cost is None for one in found.values())


def test_a_model_nobody_knows_has_no_numbers_and_says_so():
    found = forecasts(plan_of("biomed", "base.model=who/knows"), [])["train"]

    assert (found.gpu_memory_gb, found.tokens, found.wall_h) == (None, None, None)
    assert found.note == "unknown model `who/knows`: no config of it is on this machine"


def test_the_published_run_takes_about_the_published_time():
    """100K pairs: 10 h to write and 2.5 h to judge on an A100; a 2B model 32 h on one of eight."""
    found = forecasts(plan_of("biomed"), [], fleet=Fleet(DEVICES["a100"]))
    share = value(found["generate"].rows) / 100_000

    assert value(found["generate"].wall_h) / share == pytest.approx(10, rel=0.3)
    assert value(found["filter"].wall_h) / share == pytest.approx(2.5, rel=0.3)
    assert value(found["train"].wall_h) == pytest.approx(32, rel=0.4)


def test_every_model_that_a_filter_asks_counts_and_only_the_largest_is_in_memory():
    judge, model = "judge: {model: pocket/judge}", "model: {model: pocket/base}"
    asking = {
        "one": f"[{{use: consistency, {judge}}}]",
        "two": f"[{{use: consistency, {judge}}}, {{use: grounded, {judge}}}]",
        "votes": f"[{{use: votes, judges: [{{{judge}}}, {{{judge}}}]}}]",
        "looks": f"[{{use: grounded, sees: image, prompt: grounded_image@1, {judge}}}]",
        "guesses": f"[{{use: needs_image, {model}}}]",
        "tries": f"[{{use: difficulty, num_answers: 4, {model}}}]",
    }
    found = {
        name: forecasts(plan_of("quickstart", f"filters.tasks={filters}"), [])["filter"]
        for name, filters in asking.items()
    }
    tokens = {name: value(one.tokens) for name, one in found.items()}

    assert found["one"].gpu_memory_gb is not None
    assert value(found["one"].gpu_memory_gb) == value(found["votes"].gpu_memory_gb)
    assert tokens["votes"] == pytest.approx(2 * tokens["one"])
    assert tokens["one"] < tokens["two"]
    assert tokens["looks"] > tokens["guesses"] > 0
    assert tokens["tries"] > 4 * tokens["guesses"]


def test_cost_is_hours_times_price():
    found = forecasts(plan_of("biomed"), [], fleet=Fleet(DEVICES["h100"], 1, 2.5))["train"]

    assert value(found.cost) == pytest.approx(2.5 * value(found.wall_h))


def test_a_measurement_on_a_cpu_says_nothing_about_a_gpu():
    past = [measured("biomed", "train", 9.0, steps=1)]
    fleet = Fleet(DEVICES["h100"])
    cpu = forecasts(plan_of("biomed"), past, fleet=fleet)["train"]
    gpu = forecasts(plan_of("biomed"), [replace(past[0], device="cuda")], fleet=fleet)["train"]

    assert cpu.wall_h is not None
    assert gpu.wall_h is not None
    assert "of the peak rate of h100" in cpu.wall_h.basis
    assert gpu.wall_h.basis.startswith("measured: run r-1, scaled from 1")


def test_the_micro_batch_is_halved_until_it_fits():
    small = forecasts(plan_of("biomed"), [], fleet=Fleet(DEVICES["h100"]))["train"]
    large = forecasts(plan_of("biomed"), [], fleet=Fleet(DEVICES["h200"]))["train"]

    assert small.gpu_memory_gb is not None
    assert large.gpu_memory_gb is not None
    assert "2 rows at once" in small.gpu_memory_gb.basis
    assert "4 rows at once" in large.gpu_memory_gb.basis
    assert 57 < value(small.gpu_memory_gb) <= 80 < value(large.gpu_memory_gb) <= 141


def test_low_rank_adapters_need_less_than_all_weights():
    full = forecasts(plan_of("biomed"), [])["train"]
    lora = forecasts(plan_of("biomed", "base.method=lora"), [])["train"]

    assert value(lora.gpu_memory_gb) < value(full.gpu_memory_gb) / 1.8


def test_a_mix_with_a_part_of_unknown_size_is_unknown():
    found = forecasts(plan_of("food", "source.dataset=who/knows"), [])

    assert found["collect"].rows is None
    assert found["mix"] == Forecast()
    assert found["train"].rows is None
    assert found["train"].gpu_memory_gb is not None


def test_a_slice_of_a_hub_dataset_says_how_many_rows():
    found = forecasts(plan_of("food", "source.split=train[:1000]"), [])

    assert found["collect"].rows == Figure(1000, "recipe: split train[:1000]")


def test_nodes_side_by_side_wait_for_their_inputs():
    plan = plan_of("quickstart")
    hours = {"collect": 1.0, "curate": 1.0, "collect/pocket_cells": 1.0, "collect/seed_tasks": 1.0}

    assert wall_of(plan, hours, 1) == 4.0
    assert wall_of(plan, hours, 2) == 2.0
    assert wall_of(plan, hours, 9) == 2.0


@pytest.mark.alone
def test_ten_thousand_nodes_take_a_moment():
    import time

    plan = plan_of("biomed")
    nodes = tuple(
        replace(node, key=f"{node.key}{copy}") for copy in range(230) for node in plan.nodes
    )
    started = time.process_time()
    forecasts(Plan("many", nodes), [], fleet=Fleet(DEVICES["a100"]))

    assert time.process_time() - started < 1.5  # 0.2 on an idle machine
