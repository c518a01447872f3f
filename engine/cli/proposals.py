"""The numbers that `adapt init --data` proposes, each with the sentence that says why.

A threshold begins at a usual value and is lowered where the data would lose more than one pair in
twenty: small pictures and short captions can be what a domain is like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.cli.survey import NEAR_BITS, Spread

if TYPE_CHECKING:
    from engine.cli.survey import Survey

MIN_SIDE_PX = 56  # two image tokens of Qwen2-VL across
MIN_WORDS = 3
MAX_WORDS = 300  # what 512 tokens hold beside a picture's
_LOSS = 20  # a threshold may cost one pair in so many before it is lowered
_HOLDOUT_ITEMS = 500


@dataclass(frozen=True, slots=True)
class Proposal:
    """A filter and why it is set so."""

    settings: dict[str, Any]  # `use` included
    why: str


def image_size(facts: Survey) -> Proposal:
    """Propose the shortest side that a picture may have."""
    if not facts.short_sides_px:
        why = "No picture of the sample could be opened."
        return Proposal({"use": "image_size", "min_side_px": MIN_SIDE_PX}, why)
    sides = Spread.of(facts.short_sides_px)
    limit, dropped = MIN_SIDE_PX, facts.num_below("short_sides_px", MIN_SIDE_PX)
    why = f"{limit} px: two image tokens of Qwen2-VL across; "
    if dropped * _LOSS > len(facts.short_sides_px):
        limit = max(8, int(sides.low) // 8 * 8)
        why = f"{limit} px, for {dropped} of {len(facts.short_sides_px)} are below {MIN_SIDE_PX}; "
        dropped = facts.num_below("short_sides_px", limit)
    settings: dict[str, Any] = {"use": "image_size", "min_side_px": limit}
    why += f"it drops {dropped} of {len(facts.short_sides_px)} looked at."
    if facts.max_aspect_ratio > 20:
        settings["max_aspect_ratio"] = 20
        why += f" One picture is {facts.max_aspect_ratio:.0f} times longer than wide."
    return Proposal(settings, why)


def caption_length(facts: Survey) -> Proposal:
    """Propose the fewest words of a caption, and the most where some are very long."""
    words = Spread.of(facts.words)
    limit, dropped = MIN_WORDS, facts.num_below("words", MIN_WORDS)
    why = f"{limit} words are about the least that a task can be made of; "
    if dropped * _LOSS > len(facts.words):
        limit = max(1, int(words.low))
        why = f"{dropped} of {len(facts.words)} have fewer than {MIN_WORDS} words, so only "
        why += f"those below {limit} go; " if limit > 1 else "empty ones go; "
        dropped = facts.num_below("words", limit)
    settings: dict[str, Any] = {"use": "caption_length", "min_words": limit}
    why += f"it drops {dropped} of {len(facts.words)}."
    if words.most > MAX_WORDS:
        settings["max_words"] = MAX_WORDS
        num_long = len(facts.words) - facts.num_below("words", MAX_WORDS + 1)
        why += f" {num_long} are longer than {MAX_WORDS} words, too long for 512 tokens."
    return Proposal(settings, why)


def near_duplicate(facts: Survey) -> Proposal:
    """Propose near duplicates by hash, or by equal pixels where hashes collide."""
    seen = f"{facts.num_near} of {facts.num_hashed} looked at"
    if facts.num_near * 50 > facts.num_hashed:
        bits, why = (
            0,
            f"Equal pixels only: {NEAR_BITS} bits would also drop {seen}; are they alike?",
        )
    else:
        bits, why = NEAR_BITS, "The same photograph scaled or saved again; "
        why += f"beside equal pixels, {NEAR_BITS} bits drop {seen}."
    return Proposal({"use": "near_duplicate", "max_distance_bits": bits}, why)


def holdout(num_rows: int | None, facts: Survey) -> tuple[float, int, str]:
    """Propose share and most items of the hold-out, and say what they mean for a score."""
    if num_rows is None:
        why = f"Shards are not counted here; a tenth, at most {_HOLDOUT_ITEMS} pairs."
        return 0.1, _HOLDOUT_ITEMS, why
    num_pairs = round(num_rows * facts.num_pairs / facts.num_sampled)
    share = min(0.2, max(0.01, round(_HOLDOUT_ITEMS / max(num_pairs, 1), 2)))
    items = max(1, min(_HOLDOUT_ITEMS, round(num_pairs * share)))
    error = 98 / items**0.5  # 1.96 standard errors of a score of 50
    why = f"About {items} of {num_pairs:,} pairs;\n# a score of 50 is then known to "
    why += f"+-{error:.0f} points."
    if items < 50:
        why += " That is little: a benchmark of its own is better."
    return share, _HOLDOUT_ITEMS, why
