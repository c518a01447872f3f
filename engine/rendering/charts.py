"""Small SVG drawings for the report: a funnel, an interval plot, a loss curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 640
ROW = 30
LABEL = 150


def funnel_svg(steps: Sequence[tuple[str, int]]) -> str:
    """Draw one bar per step, as long as its share of the largest."""
    largest = max((count for _, count in steps), default=0) or 1
    bars = []
    for number, (name, count) in enumerate(steps):
        y = number * ROW
        length = (WIDTH - LABEL - 70) * count / largest
        bars.append(
            f'<text x="{LABEL - 10}" y="{y + 19}" class="label">{escape(name)}</text>'
            f'<rect x="{LABEL}" y="{y + 5}" width="{max(length, 1):.1f}" height="20" rx="3"/>'
            f'<text x="{LABEL + length + 8:.1f}" y="{y + 19}">{count:,}</text>'
        )
    return _svg("funnel", len(steps) * ROW, "".join(bars), "Rows left after each step")


def interval_svg(scores: Sequence[Mapping[str, Any]]) -> str:
    """Draw the difference of each score row with its interval, on one axis around zero."""
    if not scores:
        return ""
    reach = max(10.0, *(abs(row[end]) for row in scores for end in ("ci_low", "ci_high")))
    height = len(scores) * ROW + 24
    middle, scale = LABEL + (WIDTH - LABEL) / 2, (WIDTH - LABEL - 40) / 2 / reach
    rows = [_interval(row, number, middle, scale) for number, row in enumerate(scores)]
    zero = f'<line x1="{middle}" y1="0" x2="{middle}" y2="{height - 20}" class="zero"/>'
    ends = "".join(
        f'<text x="{middle + value * scale:.1f}" y="{height - 4}" class="tick">{value:+.0f}</text>'
        for value in (-reach, 0.0, reach)
    )
    title = "Difference in points, adapted minus base, with 95 % interval"
    return _svg("intervals", height, zero + "".join(rows) + ends, title)


def curve_svg(points: Sequence[tuple[float, float]]) -> str:
    """Draw loss over steps as a line."""
    if len(points) < 2:
        return ""
    height, left, bottom = 180, 44, 24
    xs, ys = [x for x, _ in points], [y for _, y in points]
    top = max(ys) or 1.0
    span = (max(xs) - min(xs)) or 1.0
    line = " ".join(
        f"{left + (x - min(xs)) / span * (WIDTH - left - 10):.1f},"
        f"{8 + (1 - y / top) * (height - bottom - 8):.1f}"
        for x, y in points
    )
    body = (
        f'<polyline points="{line}"/>'
        f'<line x1="{left}" y1="{height - bottom}" x2="{WIDTH}" y2="{height - bottom}" '
        'class="zero"/>'
        f'<text x="{left - 6}" y="16" class="label">{top:.2f}</text>'
        f'<text x="{left - 6}" y="{height - bottom}" class="label">0</text>'
        f'<text x="{WIDTH - 4}" y="{height - 6}" class="label">{max(xs):,.0f} steps, '
        f"ends at {ys[-1]:.3f}</text>"
    )
    return _svg("curve", height, body, "Training loss per optimizer step")


def _interval(row: Mapping[str, Any], number: int, middle: float, scale: float) -> str:
    y = number * ROW + 15
    low, high = middle + row["ci_low"] * scale, middle + row["ci_high"] * scale
    kind = "gain" if row["ci_low"] > 0 else "loss" if row["ci_high"] < 0 else "open"
    name = row.get("answer_type") or row["benchmark"]
    return (
        f'<text x="{LABEL - 10}" y="{y + 4}" class="label">{escape(str(name))}</text>'
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" class="{kind}"/>'
        f'<circle cx="{middle + row["difference"] * scale:.1f}" cy="{y}" r="5" class="{kind}"/>'
    )


def _svg(name: str, height: int, body: str, title: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{body}</svg>'
    )
