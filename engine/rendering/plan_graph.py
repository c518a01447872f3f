"""A plan as a drawing that other programs make: Mermaid flowcharts and Graphviz graphs.

Labels hold ids and reasons that come from recipes: both writers escape all that has a meaning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from engine.rendering.plan_card import Card

_SHOWN = ("rows", "tokens", "gpu_memory_gb", "wall_h")
_WORDS = {"rows": "rows", "tokens": "tokens", "gpu_memory_gb": "GB", "wall_h": ""}
_MERMAID_MEANINGS = '#"<>&;`[](){}|\\'


def mermaid(recipe: str, cards: Sequence[Card]) -> str:
    """Return a Mermaid flowchart; cached nodes are green, the others have a dashed border."""
    names = _names(cards)
    lines = ["---", f"title: {json.dumps(f'plan of {recipe}')}", "---", "flowchart LR"]
    for one in cards:
        label = "<br/>".join(_mermaid_text(line) for line in _label(one))
        lines.append(f'  {names[one.id]}["{label}"]:::{_kind(one)}')
    lines += [f"  {names[a]} --> {names[b]}" for a, b in edges(cards)]
    lines.append("  classDef cached fill:#d9f2e0,stroke:#2e7d4f,color:#12351f")
    lines.append("  classDef run fill:#fff7e0,stroke:#b7791f,color:#3d2a05,stroke-dasharray:4 3")
    return "\n".join(lines)


def dot(recipe: str, cards: Sequence[Card]) -> str:
    """Return a Graphviz graph."""
    names = _names(cards)
    lines = [f"digraph {_dot_text(f'plan of {recipe}')} {{", "  rankdir=LR;"]
    lines.append('  node [shape=box, fontname="sans-serif", fontsize=10, style=filled];')
    for one in cards:
        color = "#d9f2e0" if one.is_cached else "#fff7e0"
        style = "filled" if one.is_cached else "filled,dashed"
        label = _dot_text("\n".join(_label(one)))
        tip = _dot_text(f"{one.state}; {one.reason}")
        lines.append(
            f'  {names[one.id]} [label={label}, fillcolor="{color}", style="{style}", '
            f"tooltip={tip}];"
        )
    lines += [f"  {names[a]} -> {names[b]};" for a, b in edges(cards)]
    return "\n".join([*lines, "}"])


def edges(cards: Sequence[Card]) -> list[tuple[str, str]]:
    """Return (from, to) of every pair of cards that are joined."""
    ids = {one.id for one in cards}
    return [(parent, one.id) for one in cards for parent in one.parents if parent in ids]


def _names(cards: Sequence[Card]) -> dict[str, str]:
    return {one.id: f"n{number}" for number, one in enumerate(cards)}


def _kind(one: Card) -> str:
    return "cached" if one.is_cached else "run"


def _label(one: Card) -> list[str]:
    """Return the lines of a node: its id, its numbers, why it runs."""
    numbers = [
        f"{one.cells[name].text} {_WORDS[name]}".strip() for name in _SHOWN if name in one.cells
    ]
    return [line for line in (one.id, ", ".join(numbers), _why(one)) if line]


def _why(one: Card) -> str:
    if one.is_cached:
        return "cached"
    reason = one.reason if len(one.reason) <= 60 else f"{one.reason[:57]}..."
    return f"runs: {reason}"


def _mermaid_text(text: str) -> str:
    """Write letters with a meaning as entity codes, which Mermaid spells `#code;`."""
    return "".join(
        f"#{ord(letter)};" if letter in _MERMAID_MEANINGS or not letter.isprintable() else letter
        for letter in text
    )


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{"".join(letter for letter in escaped if letter.isprintable())}"'
