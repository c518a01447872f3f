"""What a sample of a user's pairs is like: sizes, modes, caption lengths, duplicates.

`adapt init --data` prints it and derives the thresholds that it proposes from it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.sources import Row
    from engine.sources._look import Look

SAMPLE_ROWS = 200
NEAR_BITS = 4  # what `near_duplicate` calls a common choice for photographs
_HASHED_PICTURES = 100  # decoding large photographs takes a tenth of a second each
# English without one of these in a caption of five words or more is rare.
_ENGLISH = re.compile(r"\b(the|a|an|of|in|on|with|and|is|at|from|to|for)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Spread:
    """The smallest, middle and largest of some numbers, and what 19 of 20 are at least."""

    least: float
    low: float  # the 5th percentile
    middle: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one number."""
        ordered = sorted(values)
        return cls(ordered[0], ordered[len(ordered) // 20], median(ordered), ordered[-1])


@dataclass(frozen=True, slots=True)
class Survey:
    """Facts of a sample."""

    num_sampled: int  # rows read, usable or not
    num_pairs: int
    problems: Mapping[str, int]  # reason -> rows
    num_unreadable: int  # pairs whose picture cannot be decoded
    modes: Mapping[str, int]
    short_sides_px: tuple[int, ...]
    max_aspect_ratio: float
    words: tuple[int, ...]
    num_hashed: int
    num_duplicates: int  # equal pixels
    num_near: int  # beyond those, within NEAR_BITS
    num_repeated_captions: int
    share_english: float  # of captions of five words or more
    example: str

    def num_below(self, name: str, limit: float) -> int:
        """Return how many of the sample are below a limit."""
        return sum(value < limit for value in getattr(self, name))


def survey(found: Look) -> Survey:
    """Return the facts of a sample."""
    pictures = [row.images[0] for row in found.rows]
    opened = [shape for shape in map(_shape, pictures) if shape is not None]
    captions = [_caption(row) for row in found.rows]
    long = [caption for caption in captions if len(caption.split()) >= 5]
    duplicates, near, num_hashed = _look_alikes(pictures)
    return Survey(
        num_sampled=len(found.rows) + len(found.problems),
        num_pairs=len(found.rows),
        problems=dict(Counter(problem.reason for problem in found.problems).most_common()),
        num_unreadable=len(pictures) - len(opened),
        modes=dict(Counter(mode for mode, _, _ in opened).most_common()),
        short_sides_px=tuple(min(width, height) for _, width, height in opened),
        max_aspect_ratio=max((max(w, h) / min(w, h) for _, w, h in opened), default=1.0),
        words=tuple(map(_num_words, captions)),
        num_hashed=num_hashed,
        num_duplicates=duplicates,
        num_near=near,
        num_repeated_captions=len(captions) - len(set(captions)),
        share_english=sum(bool(_ENGLISH.search(c)) for c in long) / len(long) if long else 1.0,
        example=captions[0],
    )


def lines(found: Look, facts: Survey) -> list[str]:
    """Return what a person should know of the data, a line each."""
    of = f" of {found.num_rows:,}" if found.num_rows is not None else ""
    problems = ", ".join(f"{reason} {count}" for reason, count in facts.problems.items())
    result = [
        f"rows       {facts.num_sampled:,}{of} looked at, {facts.num_pairs:,} are pairs"
        + (f"; not usable: {problems}" if problems else "")
    ]
    if facts.short_sides_px:
        side = Spread.of(facts.short_sides_px)
        modes = ", ".join(f"{mode} {count}" for mode, count in facts.modes.items())
        result.append(
            f"pictures   shortest side {side.least:.0f} to {side.most:.0f} px, median "
            f"{side.middle:.0f}; {modes}"
        )
    if facts.num_unreadable:
        result.append(f"unreadable {facts.num_unreadable} pictures cannot be decoded")
    words = Spread.of(facts.words)
    result.append(
        f"captions   {words.least:.0f} to {words.most:.0f} words, median {words.middle:.0f}; "
        f"{facts.num_repeated_captions} repeat another; first: {_cut(facts.example)}"
    )
    result.append(
        f"duplicates {facts.num_duplicates} of {facts.num_hashed} pictures have the pixels of "
        f"another, {facts.num_near} more look like another"
    )
    result += [f"column     {c.name}: {c.holds}, for example {c.example}" for c in found.columns]
    if found.splits:
        result.append("splits     " + ", ".join(found.splits))
    if found.passed_over:
        result.append("not read   " + ", ".join(found.passed_over[:6]))
    return result


def to_json(found: Look, facts: Survey) -> dict[str, Any]:
    """Return the same facts for machines."""
    sides = Spread.of(facts.short_sides_px) if facts.short_sides_px else None
    words = Spread.of(facts.words)
    return {
        "num_rows": found.num_rows,
        "num_sampled": facts.num_sampled,
        "num_pairs": facts.num_pairs,
        "problems": dict(facts.problems),
        "num_unreadable": facts.num_unreadable,
        "modes": dict(facts.modes),
        "short_side_px": sides and [sides.least, sides.middle, sides.most],
        "caption_words": [words.least, words.middle, words.most],
        "num_repeated_captions": facts.num_repeated_captions,
        "num_hashed": facts.num_hashed,
        "num_duplicates": facts.num_duplicates,
        "num_near_duplicates": facts.num_near,
        "columns": [
            {"name": c.name, "holds": c.holds, "example": c.example} for c in found.columns
        ],
        "splits": list(found.splits),
        "not_read": list(found.passed_over),
    }


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return f'"{text}"' if len(text) <= 70 else f'"{text[:67]}..."'


def _caption(row: Row) -> str:
    return next(turn.text for turn in row.turns if turn.role == "assistant")


def _num_words(text: str) -> int:
    from engine.wording import num_words

    return num_words(text)


def _shape(encoded: bytes) -> tuple[str, int, int] | None:
    """Return mode, width and height from a picture's header; None for what is no picture."""
    import io
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run itself reports odd files, each with its row
            with Image.open(io.BytesIO(encoded)) as opened:
                return opened.mode, *opened.size
    except Exception:  # noqa: BLE001, RUF100  # what decoders raise on damage has no common type
        return None


def _look_alikes(pictures: Sequence[bytes]) -> tuple[int, int, int]:
    """Return equal pictures, further ones that look alike, and how many were compared."""
    from engine.filters._signatures import LookAlikes, look_of
    from engine.images import ImageError, decode

    step = max(1, len(pictures) // _HASHED_PICTURES)
    seen, kinds = LookAlikes(NEAR_BITS), Counter[str]()
    for number, encoded in enumerate(pictures[::step]):
        try:
            look = look_of(decode(encoded), has_hash=True)
        except ImageError:
            continue
        found = seen.find(look)
        kinds["compared"] += 1
        if found is None:
            seen.add(look, str(number))
        else:
            kinds["equal" if found[1] == "equal pixels" else "near"] += 1
    return kinds["equal"], kinds["near"], kinds["compared"]
