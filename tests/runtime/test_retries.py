from __future__ import annotations

import signal
from pathlib import Path

from engine.runtime import machine, retries


def test_a_killed_process_is_tried_again_with_the_batches_it_had():
    found = retries.retry(-signal.SIGKILL, None, "killed")

    assert found == retries.Retry("killed", shrinks=False)


def test_a_process_that_the_kernel_ended_for_memory_gets_smaller_batches():
    found = retries.retry(-signal.SIGKILL, None, "killed", out_of_memory=True)

    assert found == retries.Retry("killed", shrinks=True)


def test_the_kernels_count_of_such_ends_is_read(tmp_path: Path):
    path = tmp_path / "vmstat"
    path.write_text("pgfault 12\noom_kill 3\nnr_dirty 0\n")

    assert machine.num_oom_kills(path) == 3
    path.write_text("pgfault 12\n")
    assert machine.num_oom_kills(path) is None
    assert machine.num_oom_kills(tmp_path / "nothing") is None
