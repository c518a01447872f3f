from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.rendering.graded import with_grades
from engine.rendering.page import report_html
from engine.rendering.summary import summarise
from tests.rendering.building import nodes
from tests.rendering.test_page import ATTACK, Seen

ENDS = {"mean": 40.0, "ci_low": 30.0, "ci_high": 50.0, "num_tasks": 9, "num_images": 8}


def graded(*arms: str, grader: str = "anna") -> dict[str, Any]:
    """Return the grades of tasks that some arms share."""
    diversity = {"points": 5.0, "num_types": 1, "num_tasks": 9, "types": {"storytelling": 9}}
    diversity |= {"equal_size": 9, "points_at_equal_size": 5.0}
    part = {"set": "kept", "num_tasks": 9, "num_images": 8, "diversity": diversity}
    kappa = {"rubric": "accuracy", "graders": [grader, "ben"], "num_tasks": 9, "kappa": None}
    return {
        "arms": list(arms),
        "repaired": False,
        "graders": [grader, "ben"],
        "num_tasks": 9,
        "population": {"kept": 1234, "dropped": 56},
        "sets": [{**part, "means": [{"rubric": "accuracy", **ENDS}]}],
        "effects": [{"rubric": "accuracy", "difference": 3.0, "ci_low": 1.0, "ci_high": 5.0}],
        "agreement": [{**kappa, "weights": "quadratic", "same_percent": 100.0}],
    }


def page(folder: Path, *arms: str) -> tuple[str, dict[str, Any]]:
    """Return a page as the report stage leaves it, with its summary."""
    found = {name: nodes(folder / name) for name in arms}
    summary = summarise("mine", found)
    return report_html(summary, {"name": "mine"}, [], found), summary


def test_the_section_follows_the_funnel_of_its_arm(tmp_path: Path):
    made, summary = page(tmp_path, "full", "lora")
    html = with_grades(made, {**summary, "grades": {"tasks": [graded("lora")]}})

    assert html.count("<h2>Human grades</h2>") == 1
    assert html.index("Arm: lora") < html.index("Human grades")
    assert html.index("Human grades") < html.index("<h2>Tasks kept", html.index("Arm: lora"))
    assert Seen(html).open == []


def test_the_rest_of_the_page_stays_byte_by_byte(tmp_path: Path):
    made, summary = page(tmp_path, "main")
    html = with_grades(made, {**summary, "grades": {"tasks": [graded("main")]}})
    start = html.index("<style>tr.group")
    end = html.index("</table></div>\n", html.index("<h3>Agreement")) + len("</table></div>\n")

    assert (html[:start] + html[end:]).replace("\n", "") == made.replace("\n", "")


def test_tasks_that_two_arms_share_are_shown_once_and_said_to_be_shared(tmp_path: Path):
    made, summary = page(tmp_path, "full", "lora")
    html = with_grades(made, {**summary, "grades": {"tasks": [graded("full", "lora")]}})

    assert html.count("Human grades") == 1
    assert "those of the arms full, lora" in html


def test_repaired_tasks_have_a_section_of_their_own(tmp_path: Path):
    made, summary = page(tmp_path, "main")
    tasks = [graded("main"), {**graded("main"), "repaired": True}]
    html = with_grades(made, {**summary, "grades": {"tasks": tasks}})

    assert html.index("<h2>Human grades</h2>") < html.index("<h2>Human grades: repaired tasks</h2>")


def test_a_page_of_another_version_gets_the_section_at_its_end():
    made = "<html><body><h2>Other</h2></body></html>"
    summary = {"arms": [{"name": "main"}], "grades": {"tasks": [graded("main")]}}
    html = with_grades(made, summary)

    assert html.index("Other") < html.index("Human grades") < html.index("</body>")


def test_names_of_graders_stay_text(tmp_path: Path):
    made, summary = page(tmp_path, "main")
    found = graded("main", grader=ATTACK)
    seen = Seen(with_grades(made, {**summary, "grades": {"tasks": [found]}}))

    assert "script" not in {tag for tag, _ in seen.elements}
    assert seen.text.count("<script>alert(1)</script>") == 2
