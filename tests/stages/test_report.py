from __future__ import annotations

import json
from pathlib import Path

from tests.rendering.building import nodes
from tests.rendering.finished import run_report


def test_the_stage_writes_a_summary_and_a_page(tmp_path: Path):
    outputs = run_report(tmp_path, nodes(tmp_path / "arm"))
    summary = json.loads((outputs.path / "summary.json").read_text("utf-8"))
    (arm,) = summary["arms"]

    assert arm["funnel"] == {"pairs": 4, "generated": 4, "parsed": 4, "kept": 1, "trained": 4}
    assert [row["answer_type"] for row in arm["scores"]] == [None, "yes_no", "count"]
    assert summary["quarantined"] == 2
    assert (outputs.path / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_equal_artifacts_give_equal_bytes(tmp_path: Path):
    found = nodes(tmp_path / "arm")
    pages = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        pages.append((run_report(tmp_path / name, found).path / "report.html").read_bytes())

    assert pages[0] == pages[1]


def test_a_cut_benchmark_is_noted_in_the_summary(tmp_path: Path):
    outputs = run_report(tmp_path, nodes(tmp_path / "arm", max_items=7))
    summary = json.loads((outputs.path / "summary.json").read_text("utf-8"))

    assert summary["arms"][0]["max_items"] == 7
