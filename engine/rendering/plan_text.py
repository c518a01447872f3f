"""A plan as a table for the terminal: numbers, totals, reasons, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.rendering import plan_card
from engine.rendering.plan_card import COLUMNS, Card

Table = Callable[..., str]
_MOST_CLAUSES = 8
_DROPPED_WHEN_NARROW = ("images", "disk_gb", "cost")  # their sums stand below


class Totals(NamedTuple):
    """Sums over the nodes that will run; a sum is a floor where some node has no number."""

    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fleet: str = ""


def body(cards: Sequence[Card], totals: Totals, table: Table, width: int) -> str:
    """Return all below the first line of a plan."""
    columns = plan_card.used_columns(cards)
    if not columns:
        return table([_plain_row(one) for one in cards])
    parts = [_numbers(cards, columns, table, with_reason=True)]
    if _widest(parts[0]) > width:
        parts = [_narrow(cards, columns, table, width), _reasons(cards, width)]
    parts += [_lines(totals.lines, width), _legend(cards, totals, width)]
    parts += [_lines(totals.warnings, width)]
    return "\n\n".join(part for part in parts if part)


def _plain_row(one: Card) -> tuple[str, str, str]:
    return one.id, one.state, "" if one.is_cached else one.reason


def _narrow(cards: Sequence[Card], columns: Sequence[str], table: Table, width: int) -> str:
    """Return the table with as many columns as there is room for."""
    text = _numbers(cards, columns, table, with_reason=False)
    for dropped in _DROPPED_WHEN_NARROW:
        if _widest(text) <= width:
            break
        columns = [name for name in columns if name != dropped]
        text = _numbers(cards, columns, table, with_reason=False)
    return text


def _numbers(
    cards: Sequence[Card], columns: Sequence[str], table: Table, *, with_reason: bool
) -> str:
    """Return the table; nodes of one arm alone stand under its name, which they do not repeat."""
    has_states = len({one.state for one in cards}) > 1
    rows = [["node", *(["state"] if has_states else []), *(COLUMNS[name] for name in columns)]]
    reasons, headings = ["why"], {}
    arm = ""
    for one in cards:
        name, _, only = one.id.partition("@")
        if only and only != arm:
            headings[len(rows)] = f"  only in {only}"
        arm = only or arm
        name = name if only else one.id
        rows.append(
            [name, *([one.state] if has_states else []), *(_shown(one, c) for c in columns)]
        )
        reasons.append("" if one.is_cached else one.reason)
    lines = table(rows, numbers_from=1 + has_states).splitlines()
    if with_reason:
        side = max(map(len, lines))
        paired = zip(lines, reasons, strict=True)
        lines = [f"{line.ljust(side)}  {reason}".rstrip() for line, reason in paired]
    for place in sorted(headings, reverse=True):
        lines.insert(place, headings[place])
    return "\n".join(lines)


def _shown(one: Card, name: str) -> str:
    found = one.cells.get(name)
    return found.text if found is not None else "-"


def _reasons(cards: Sequence[Card], width: int) -> str:
    groups = plan_card.by_reason(cards)
    if not groups:
        return ""
    num_all = len(cards)
    lines = ["why they run"]
    for reason, ids in groups.items():
        who = "every node" if len(ids) == num_all and num_all > 1 else ", ".join(ids)
        lines += _wrapped(f"{reason}: {who}", width)
    return "\n".join(lines)


def _legend(cards: Sequence[Card], totals: Totals, width: int) -> str:
    lines = ["where the numbers come from"]
    texts = " ".join(shown.text for one in cards for shown in one.cells.values())
    if "<=" in texts:
        lines += _wrapped("<= is an upper bound: what the filters keep is not known yet", width)
    if "~" in texts:
        lines += _wrapped("~ stands on an assumption:", width)
    for clause in plan_card.assumptions(cards)[:_MOST_CLAUSES]:
        lines += _wrapped(clause.removeprefix("assumed: "), width, indent="    ")
    lines += _wrapped("`adapt plan RECIPE --why NODE` prints the basis of every number", width)
    return "\n".join(lines)


def _lines(lines: Sequence[str], width: int) -> str:
    return "\n".join(part for line in lines for part in _wrapped(line, width, indent=""))


def _wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    lines = [indent.removesuffix(" ")]
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > max(width, 40) and lines[-1].strip():
            lines.append(f"{indent} ")
        lines[-1] += f" {word}" if lines[-1] or indent else word
    return lines


def _widest(text: str) -> int:
    return max(map(len, text.splitlines()), default=0)
