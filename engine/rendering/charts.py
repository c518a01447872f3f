"""Small SVG drawings for the report: a funnel, an interval, a loss curve.

They are scaled to the width they get, so each is drawn narrow enough to be read on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 420
ROW = 28
LABEL = 190
INTERVAL_WIDTH = 180
LEAST_REACH = 10.0  # points; a scale around less would blow up noise


def funnel_svg(steps: Sequence[tuple[str, int]]) -> str:
    """Draw one bar per step, as long as its share of the largest."""
    largest = max((count for _, count in steps), default=0) or 1
    bars = []
    for number, (name, count) in enumerate(steps):
        y = number * ROW
        length = (WIDTH - LABEL - 60) * count / largest
        bars.append(
            f'<text x="{LABEL - 10}" y="{y + 19}" class="label">{escape(name)}</text>'
            f'<rect x="{LABEL}" y="{y + 5}" width="{max(length, 1):.1f}" height="18" rx="3"/>'
            f'<text x="{LABEL + length + 8:.1f}" y="{y + 19}">{count:,}</text>'
        )
    return _svg("funnel", WIDTH, len(steps) * ROW, "".join(bars), "Rows left after each step")


def reach_of(scores: Sequence[Mapping[str, Any]]) -> float:
    """Return the half-width of one axis that has room for every interval."""
    ends = [abs(float(row[end])) for row in scores for end in ("ci_low", "ci_high")]
    return max([LEAST_REACH, *ends])


def interval_svg(row: Mapping[str, Any], reach: float, kind: str) -> str:
    """Draw the difference of a score row with its interval, on an axis from -reach to reach."""
    middle, scale, y = INTERVAL_WIDTH / 2, (INTERVAL_WIDTH / 2 - 6) / reach, 10
    low, high = middle + row["ci_low"] * scale, middle + row["ci_high"] * scale
    body = (
        f'<line x1="{middle}" y1="0" x2="{middle}" y2="20" class="zero"/>'
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" class="{kind}"/>'
        f"{_mark(low, kind)}{_mark(high, kind)}"
        f'<circle cx="{middle + row["difference"] * scale:.1f}" cy="{y}" r="2.5" class="{kind}"/>'
    )
    name = row.get("answer_type") or row["benchmark"]
    title = f"{name}: {row['difference']:+.1f}, {row['ci_low']:+.1f} to {row['ci_high']:+.1f}"
    return _svg("interval", INTERVAL_WIDTH, 20, body, title)


def mean_svg(name: str, row: Mapping[str, Any], kind: str) -> str:
    """Draw a mean with its interval, on an axis from 0 to 100."""
    left, scale, y = 6, (INTERVAL_WIDTH - 12) / 100, 10
    low, high, middle = (left + row[end] * scale for end in ("ci_low", "ci_high", "mean"))
    body = (
        f'<line x1="{left}" y1="0" x2="{left}" y2="20" class="zero"/>'
        f'<line x1="{INTERVAL_WIDTH - 6}" y1="0" x2="{INTERVAL_WIDTH - 6}" y2="20" class="zero"/>'
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" class="{kind}"/>'
        f"{_mark(low, kind)}{_mark(high, kind)}"
        f'<circle cx="{middle:.1f}" cy="{y}" r="2.5" class="{kind}"/>'
    )
    title = f"{name}: {row['mean']:.1f}, {row['ci_low']:.1f} to {row['ci_high']:.1f}"
    return _svg("interval", INTERVAL_WIDTH, 20, body, title)


def _mark(x: float, kind: str) -> str:
    """Draw an end of an interval, which shows where the interval is narrower than its dot."""
    return f'<line x1="{x:.1f}" y1="6" x2="{x:.1f}" y2="14" class="{kind} end"/>'


def curve_svg(
    points: Sequence[tuple[float, float]], held_out: Sequence[tuple[float, float]] = ()
) -> str:
    """Draw loss over steps as a line, that of held-out rows as dots; nothing for one point."""
    if len(points) < 2:
        return ""
    height, left, bottom = 170, 44, 26
    xs, ys = [x for x, _ in points], [y for _, y in points]
    top = max([*ys, *(loss for _, loss in held_out)]) or 1.0
    span = (max(xs) - min(xs)) or 1.0

    def place(x: float, y: float) -> tuple[str, str]:
        across = left + (x - min(xs)) / span * (WIDTH - left - 10)
        return f"{across:.1f}", f"{8 + (1 - y / top) * (height - bottom - 8):.1f}"

    line = " ".join(",".join(place(*point)) for point in _thinned(points))
    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="4"/>' for x, y in (place(*point) for point in held_out)
    )
    floor = height - bottom
    body = (
        f'<line x1="{left}" y1="{floor}" x2="{WIDTH}" y2="{floor}" class="zero"/>'
        f'<polyline points="{line}"/>{dots}'
        f'<text x="{left - 6}" y="16" class="label">{top:.2f}</text>'
        f'<text x="{left - 6}" y="{floor}" class="label">0</text>'
        f'<text x="{left}" y="{height - 7}" class="soft">step {min(xs):,.0f}</text>'
        f'<text x="{WIDTH - 4}" y="{height - 7}" class="label">step {max(xs):,.0f}: '
        f"loss {ys[-1]:.3f}</text>"
    )
    return _svg("curve", WIDTH, height, body, "Training loss per optimizer step")


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return at most a thousand points, the last among them: a page stays small."""
    stride = -(-len(points) // 1000)
    return [*points[:-1:stride], points[-1]]


def _svg(name: str, width: int, height: int, body: str, title: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{body}</svg>'
    )
