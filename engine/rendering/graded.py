"""The section of people's grades, put into the page that the report stage made.

The stage knows no grades: they came later. The page is not made anew, so that nothing else in it
moves, and nothing has to be read but the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.rendering import charts, verdicts
from engine.rendering.templates import page_template

KINDS = {"generated": "plain", "kept": "gain", "dropped": "loss"}
FUNNEL = "<h2>Funnel</h2>"  # one an arm; data cannot say it, as the page escapes data
END = "</body>"


def with_grades(page: str, summary: Mapping[str, Any]) -> str:
    """Return the page with a section after the funnel of each arm whose tasks were graded."""
    sections: dict[str, str] = {}
    for found in summary["grades"]["tasks"]:
        arm = found["arms"][0]
        sections[arm] = sections.get(arm, "") + section(found)
    head, *parts = page.split(FUNNEL)
    names = [arm["name"] for arm in summary["arms"]]
    if len(parts) != len(names):  # a page of another version of the engine
        return page.replace(END, "".join(sections.values()) + END)
    told = [
        _after_drawing(part, sections.pop(name, ""))
        for name, part in zip(names, parts, strict=True)
    ]
    return FUNNEL.join([head, *told]).replace(END, "".join(sections.values()) + END)


def section(graded: Mapping[str, Any]) -> str:
    """Return the section of one `tasks` of the grades of a summary."""
    shown = {
        **graded,
        "rubrics": _rubrics(graded["sets"]),
        "effects": _effects(graded["effects"]),
        "reach": charts.reach_of(graded["effects"]),
    }
    return str(page_template("grades").render(found=shown))


def _after_drawing(part: str, added: str) -> str:
    drawing, end, rest = part.partition("</svg>")
    return f"{drawing}{end}{added}{rest}"


def _rubrics(sets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of each rubric, one a set, so that what the filters did stands together."""
    names = dict.fromkeys(row["rubric"] for part in sets for row in part["means"])
    return [
        {
            "name": name,
            "rows": [
                _row(part["set"], row)
                for part in sets
                for row in part["means"]
                if row["rubric"] == name
            ],
        }
        for name in names
    ]


def _row(of_set: str, row: Mapping[str, Any]) -> dict[str, Any]:
    svg = charts.mean_svg(f"{row['rubric']}, {of_set}", row, KINDS[of_set])
    return {**row, "set": of_set, "svg": svg}


def _effects(effects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    reach = charts.reach_of(effects)
    return [
        {
            **row,
            "kind": verdicts.kind(row),
            "svg": charts.interval_svg(
                {**row, "benchmark": row["rubric"]}, reach, verdicts.kind(row)
            ),
        }
        for row in effects
    ]
