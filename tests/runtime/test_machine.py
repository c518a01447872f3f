"""What the driver's tool prints, given by a stand-in on PATH: the real one needs a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.runtime import machine


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(answer: str) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\ncat <<'EOF'\n{answer}\nEOF\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def test_sizes_of_gpus_come_in_the_order_in_which_they_are_visible(driver):
    driver("0, 81559\n1, 24576")

    assert [round(gb) for gb in machine.gpu_sizes_gb(None)] == [86, 26]
    assert [round(gb) for gb in machine.gpu_sizes_gb("1,0")] == [26, 86]
    assert machine.gpu_sizes_gb("GPU-8f2c") == ()


def test_memory_of_a_process_is_summed_over_its_gpus(driver):
    driver("17, 1000\n17, 500\n18, [N/A]")

    assert machine.gpu_memory_gb_by_process() == {17: pytest.approx(1.573, abs=1e-3)}


def test_a_driver_that_answers_nothing_costs_nothing(driver):
    driver("NVIDIA-SMI has failed")

    assert machine.gpu_sizes_gb(None) == ()
    assert machine.gpu_memory_gb_by_process() == {}


def test_a_process_group_is_counted_with_its_children():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = 1\\nwhile x: pass'])"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        found = _usage_when(
            process.pid, lambda found: found and len(found.pids) == 2 and found.cpu_s >= 0.3
        )
    finally:
        os.killpg(process.pid, 9)
        process.wait()

    assert 0.005 < found.memory_gb < 1
    # The child's end is another process's to wait for: it may be seen for a moment longer.
    assert _usage_when(process.pid, lambda found: found is None) is None


def _usage_when(group, is_so):
    deadline = time.monotonic() + 20
    while not is_so(found := machine.group_usage(group)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found
