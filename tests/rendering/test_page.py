from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact, Outputs
from engine.rendering.page import report_html
from engine.rendering.summary import summarise
from engine.stages._ranking import ranked
from tests.rendering.building import artifact, nodes, score

ATTACK = (
    """<script>alert(1)</script>"' onerror="x()" <img src=http://evil.example/a.png> {{ 7*7 }}"""
)
VOID = {"meta", "img", "br", "circle", "line", "rect", "polyline"}


def page(arms: dict[str, dict[str, Artifact]], raw: dict[str, Any] | None = None) -> str:
    plan = [{"id": "collect", "stage": "collect", "key": "0" * 64}]
    return report_html(summarise("mine", arms), raw or {"name": "mine"}, plan, arms)


class Seen(HTMLParser):
    """What a browser would see: every element with its attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " ".join(data.split()) + " "


def test_the_page_shows_every_section_and_the_verdict_comes_first(tmp_path: Path):
    html = page({"main": nodes(tmp_path)})
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)

    assert titles == [
        "Scores",
        "Funnel",
        "Tasks kept",
        "Types of tasks",
        "Tasks dropped",
        "Outputs without a task",
        "Answers: cells",
        "Loss: train",
        "Set aside",
        "Plan",
        "Recipe",
    ]
    assert html.index("a gain of 21.0 points") < html.index("<h2>Scores")


def test_every_tag_is_closed(tmp_path: Path):
    assert Seen(page({"one": nodes(tmp_path / "1"), "two": nodes(tmp_path / "2")})).open == []


def test_text_from_data_stays_text(tmp_path: Path):
    scores = [score(ATTACK, 1.0, 2.0), score(ATTACK, 1.0, 2.0, answer_type=ATTACK, metric=ATTACK)]
    arm = nodes(tmp_path, caption=ATTACK, scores=scores)
    seen = Seen(page({ATTACK: arm, "two": arm}, {"name": ATTACK, "description": ATTACK}))
    names = {name for _, attributes in seen.elements for name in attributes}

    assert "script" not in {tag for tag, _ in seen.elements}
    assert not {name for name in names if name.startswith("on")}
    assert "<script>alert(1)</script>" in seen.text
    assert "{{ 7*7 }}" in seen.text


def test_the_page_asks_nothing_of_the_network(tmp_path: Path):
    arm = nodes(tmp_path, caption="javascript:alert(1) http://evil.example url(http://x)")
    seen = Seen(page({"main": arm}))
    sources = [attributes["src"] or "" for tag, attributes in seen.elements if tag == "img"]
    leading = {"href", "action", "srcset", "xlink:href", "background", "poster", "style"}

    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not {name for _, attributes in seen.elements for name in attributes} & leading
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in seen.elements)
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in seen.elements)


def test_on_paper_nothing_is_cut_off_or_folded_away(tmp_path: Path):
    html = page({"main": nodes(tmp_path)})
    rules = html[html.index("@media print") : html.index("</style>")]

    assert ".scroll { overflow: visible; }" in rules
    assert "details::details-content { content-visibility: visible;" in rules


STEPS = {
    "image-caption pairs": 4,
    "outputs of the generator": 5,
    "tasks parsed": 4,
    "after repetition": 4,
    "after consistency": 1,
    "tasks joined into rows": 1,
    "rows trained on": 4,
}


def test_the_summary_tells_what_every_filter_left(tmp_path: Path):
    (arm,) = summarise("mine", {"main": nodes(tmp_path)})["arms"]

    assert {one["step"]: one["rows"] for one in arm["steps"]} == STEPS


def test_a_kept_task_shows_what_its_judge_said_and_a_failed_output_what_was_written(
    tmp_path: Path,
):
    html = page({"main": nodes(tmp_path)})

    assert "consistency: yes 0.93" in html
    assert "raw output: Three red cells" in html
    assert re.search(r"attribute</td><td>1</td><td>1</td>", html)


def test_the_funnel_keeps_the_order_of_the_steps_when_the_summary_was_stored(tmp_path: Path):
    arms = {"main": nodes(tmp_path)}
    stored = json.loads(json.dumps(summarise("mine", arms), sort_keys=True))
    html = report_html(stored, {"name": "mine"}, [], arms)
    places = [html.index(f'class="label">{label}<') for label in STEPS]

    assert places == sorted(places)


def test_several_arms_are_compared_first(tmp_path: Path):
    arms = {name: nodes(tmp_path / name) for name in ("full", "lora")}
    html = page(arms)

    assert html.index("Arms compared") < html.index("Arm: full") < html.index("Arm: lora")
    assert html.index("<td>full</td>") < html.index("<td>lora</td>") < html.index("Arm: full")


def test_arms_are_ranked_before_they_are_compared(tmp_path: Path):
    arms = {name: nodes(tmp_path / name) for name in ("full", "lora")}
    summary = summarise("mine", arms)
    summary["ranking"] = ranked(summary["arms"], arms)
    text = Seen(report_html(summary, {"name": "mine"}, [], arms)).text

    assert text.index("Arms ranked") < text.index("Arms compared")
    assert re.search(r"1=\s+full\s+51\.0\s+\+21\.0\s", text)
    assert re.search(r"1=\s+lora\s", text)


def test_a_smoke_run_says_that_it_is_no_result(tmp_path: Path):
    html = page({"main": nodes(tmp_path, max_items=40)})

    assert html.index("Smoke run, not a result") < html.index("a gain of")


def test_a_whole_run_is_not_called_smoke(tmp_path: Path):
    assert "Smoke" not in page({"main": nodes(tmp_path)})


def test_dropped_tasks_are_counted_by_reason_and_each_reason_is_shown(tmp_path: Path):
    text = Seen(page({"main": nodes(tmp_path)})).text

    assert re.search(r"consistency: answers disagree\s+2\s+consistency: no verdict\s+1", text)
    assert text.count("consistency: no verdict") == 2


@pytest.mark.parametrize(
    "missing", ["collect", "curate", "generate", "filter", "train", "evaluate.scores/cells"]
)
def test_a_node_that_is_not_there_does_not_break_the_page(tmp_path: Path, missing: str):
    found = nodes(tmp_path)
    del found[missing]

    assert Seen(page({"main": found})).open == []


@pytest.mark.parametrize(
    "lost", ["images-*", "losses-*", "scores.json", "items-*", "kept-*", "dropped-*", "pairs-*"]
)
def test_a_file_that_is_not_there_does_not_break_the_page(tmp_path: Path, lost: str):
    found = nodes(tmp_path)
    (path,) = (p for a in found.values() for p in a.path.glob(lost))
    path.unlink()

    assert Seen(page({"main": found})).open == []


def test_without_scores_the_page_claims_nothing(tmp_path: Path):
    html = page({"main": nodes(tmp_path, scores=[])})

    assert "Nothing was scored" in html
    assert "a gain of" not in html


def test_a_torn_image_file_costs_the_pictures_alone(tmp_path: Path):
    found = nodes(tmp_path)
    (path,) = found["collect"].path.glob("images-*")
    path.write_bytes(path.read_bytes()[:200])
    html = page({"main": found})

    assert "no image" in html
    assert "<img" not in html


def test_a_mended_task_shows_what_was_wrong_with_it(tmp_path: Path):
    found = nodes(tmp_path)
    (kept,) = found["filter"].records("kept")
    old = {"precise": f"four {ATTACK}", "informative": "Four.", "by": "consistency"}
    history = {**old, "reason": "answers differ", "remark": ""}
    extra = {**kept.meta.extra, "mended": history}

    def repaired(outputs: Outputs) -> None:
        outputs.rows("kept").write(replace(kept, meta=replace(kept.meta, extra=extra)))

    seen = Seen(page({"main": {**found, "filter/repaired": artifact(tmp_path, "again", repaired)}}))

    assert f"consistency: answers differ (its precise answer was: four {ATTACK})" in " ".join(
        seen.text.split()
    ).replace("( ", "(")


def test_the_loss_of_held_out_rows_is_told(tmp_path: Path):
    def losses(outputs: Outputs) -> None:
        for step, more in enumerate([{}, {"held_out_loss": 1.5}, {}, {"held_out_loss": 1.25}], 1):
            outputs.rows("losses").write({"step": step, "epoch": step / 2, "loss": 1.0, **more})

    html = page({"main": {**nodes(tmp_path), "synthesizer": artifact(tmp_path, "s", losses)}})

    assert " ".join(re.sub(r"<[^>]*>", " ", html).split()).count(
        "Their loss after epoch 1: 1.500, after epoch 2: 1.250."
    )


def test_a_loss_that_is_not_a_number_is_told_and_not_drawn(tmp_path: Path):
    def losses(outputs: Outputs) -> None:
        for step, loss in enumerate([3.0, float("nan"), 2.0, float("inf"), None]):
            outputs.rows("losses").write({"step": step, "loss": loss})

    found = nodes(tmp_path)
    shutil.rmtree(found["train"].path)
    html = page({"main": found | {"train": artifact(tmp_path, "train", losses)}})

    assert "The loss of 3 steps is not a number" in html
    assert not re.search(r'points="[^"]*(nan|inf)', html)
