"""Decisions about a Ray cluster, on what Ray says of its machines; no cluster is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.plan.stage import Machine
from engine.runtime import ray_cluster, ray_node
from engine.runtime.gpus import GpuLocks
from engine.runtime.machine import Settings
from engine.runtime.ray_cluster import RayMachine
from engine.runtime.ray_node import NodeProcess, Order
from engine.runtime.worker import Job
from tests.runtime.fake_run import WORKER
from tests.runtime.fake_stages import PlanBuilder

SETTINGS = Settings(store=Path("store"), threads=0, device="cuda")
HEAD = RayMachine("head", 4, 0, 8.0)
SMALL = RayMachine("small", 8, 1, 32.0, "L4")
LARGE = RayMachine("large", 64, 4, 256.0, "H100")


def described(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": resources}


def test_a_machine_is_what_ray_says_of_it():
    resources = {"CPU": 8.0, "GPU": 1.0, "memory": 32e9, "accelerator_type:L4": 1.0}

    assert ray_cluster.machines([described("small", **resources)], []) == [SMALL]


def test_a_machine_that_runs_nothing_is_not_counted():
    assert ray_cluster.machines([described("head", memory=8e9)], []) == []


def test_machines_that_come_and_go_do_not_change_the_numbers_of_gpus():
    now = [
        described("new", CPU=2.0),
        described("large", CPU=64.0, GPU=4.0),
        described("x", alive=False),
    ]
    found = ray_cluster.machines(now, [SMALL, LARGE])

    assert [(m.id, m.threads, m.num_gpus) for m in found] == [
        ("small", 0, 1),
        ("large", 64, 4),
        ("new", 2, 0),
    ]
    assert ray_cluster.capacity(found, SETTINGS).busy_gpus == {0}


def test_a_run_may_use_the_whole_cluster_or_as_many_cores_as_it_was_given():
    limited = Settings(store=Path("store"), threads=10, device="cpu")

    whole = ray_cluster.capacity([HEAD, SMALL, LARGE], SETTINGS)
    assert (whole.threads, whole.num_gpus, whole.memory_gb) == (76, 5, 296.0)
    assert whole.gpu_memory_gb == [24.0, 80.0, 80.0, 80.0, 80.0]
    part = ray_cluster.capacity([HEAD, SMALL, LARGE], limited)
    assert (part.threads, part.num_gpus) == (10, 0)


def test_sizes_of_gpus_count_only_where_all_are_known():
    unknown = RayMachine("odd", 8, 1, 32.0, "SOME-NPU")

    assert ray_cluster.capacity([SMALL, unknown], SETTINGS).gpu_memory_gb == ()


def test_a_process_asks_for_the_kind_of_gpu_it_was_placed_on():
    asked = ray_cluster.resources([SMALL, LARGE], threads=4, gpus=(2,), memory_gb=10)

    assert asked == {"CPU": 4, "GPU": 1, "accelerator_type:H100": 0.001, "memory": 10 * 10**9}


def test_a_process_never_asks_for_more_than_a_machine_has():
    asked = ray_cluster.resources([HEAD, SMALL], threads=11, gpus=(), memory_gb=500)

    assert asked == {"CPU": 8, "memory": int(0.9 * 32 * 10**9)}
    assert ray_cluster.fits([HEAD, SMALL], asked)
    assert not ray_cluster.fits([HEAD, RayMachine("small", 0, 1, 0.0, "L4")], asked)


def test_a_machine_with_another_engine_starts_nothing_and_says_so(tmp_path: Path):
    order = Order("0.0.1", {}, ("-c", "pass"), 0, SETTINGS)
    news = NodeProcess(order).news(0.1)

    assert news.end is not None
    (message,) = news.messages
    assert f"has adapt {engine.__version__}, this run is of 0.0.1" in message["message"]
    assert message["transient"] is None


def test_a_gpu_that_another_run_of_the_machine_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "held-by-a-test")
    build = PlanBuilder()
    build.add("on_gpu", batch_s=0.0, marks=str(tmp_path / "marks"))
    job = Job(build.nodes[0], tmp_path / "store", {}, Machine(), tmp_path)
    process = NodeProcess(Order(engine.__version__, job.to_json(), WORKER, 1, SETTINGS))
    held = GpuLocks(["held-by-a-test"]).take([0])

    assert process.news(0.05).messages == ({"type": "waiting"},)
    os.close(held[0])
    news = process.news(0.05)
    messages = [*news.messages]
    assert news.pid > 0
    while news.end is None:
        news = process.news(1.0)
        messages += news.messages
    assert messages[-1]["type"] == "finished"
    assert (tmp_path / "marks").read_text().startswith("held-by-a-test ")


def test_a_store_in_the_cloud_has_its_cache_where_the_process_runs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/me")
    job = {"store": "/home/driver/.cache/adapt/stores/ab12", "remote": "s3://bucket/adapt"}

    assert ray_node.on_this_machine(job)["store"] == "/scratch/me/adapt/stores/ab12"
    assert ray_node.on_this_machine({**job, "remote": ""})["store"] == job["store"]
