"""A plan as one HTML page without script or network: the graph, the numbers, their bases."""

from __future__ import annotations

from collections.abc import Sequence

from engine.rendering import plan_card, plan_layout
from engine.rendering.plan_card import COLUMNS, Card
from engine.rendering.plan_text import Totals
from engine.rendering.templates import page_template

MOST_DRAWN = 240  # more boxes than this are no drawing but a carpet


def page(recipe: str, cards: Sequence[Card], totals: Totals) -> str:
    """Return the whole page; every text of the recipe goes through an escaping template."""
    columns = plan_card.used_columns(cards)
    drawn = plan_layout.layout(cards) if len(cards) <= MOST_DRAWN else None
    return str(
        page_template("plan").render(
            recipe=recipe,
            cards=cards,
            drawn=drawn,
            num_cached=sum(one.is_cached for one in cards),
            columns=[(name, COLUMNS[name]) for name in columns],
            totals=totals,
            reasons=plan_card.by_reason(cards),
            assumptions=plan_card.assumptions(cards),
        )
    )
