"""Drop tasks whose instruction was asked before, word for word or nearly; the first one stays.

Nearly means: the Jaccard similarity of the sets of word 3-grams, estimated by MinHash and looked up
by banding (Broder 1997; Lee et al. 2022 use the same for training data). Questions that differ only
in a number or a colour are different questions, so those words must be equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from engine.filters import Decide, Filter, FilterContext, Measure, Verdict
from engine.plugin import Between
from engine.records import Record
from engine.wording import normal

GRAM_WORDS = 3
NUM_HASHES = 64
_COLOURS = frozenset(
    (
        *("black", "white", "grey", "gray", "red", "green", "blue", "yellow", "orange", "purple"),
        *("pink", "brown", "violet", "cyan", "magenta", "turquoise", "beige", "gold", "silver"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Settings of the filter `duplicate_instruction`."""

    scope: Annotated[
        Literal["pair", "all"],
        "Compare with earlier tasks of the same pair, or of all pairs. A set of many images may "
        "well ask the same question often: `all` is for generators that know few questions.",
    ] = "pair"
    max_similarity: Annotated[
        float, Between(0, 1), "Largest similarity to an earlier instruction; 1: only equal ones."
    ] = 0.8


def measure(params: Params, context: FilterContext) -> Measure | None:
    """Take the MinHash of every instruction, where similar ones are looked for."""
    if params.max_similarity >= 1:
        return None
    return Measure(lambda records: map(_hashes, records), "instruction-minhash")


def open_filter(params: Params, context: FilterContext) -> Decide:
    """Open the filter; it remembers what was asked."""
    seen: dict[tuple[str, ...], str] = {}
    bands: dict[tuple[object, ...], list[tuple[Sequence[int], str]]] = {}
    rows = _band_rows(params.max_similarity)

    def decide(record: Record, hashes: Sequence[int] | None) -> Verdict | None:
        of = record.meta.lineage[0] if params.scope == "pair" and record.meta.lineage else ""
        words = normal(record.instruction)
        first = seen.get((of, words))
        if first is not None:
            return Verdict("same instruction", f"of {first}")
        if hashes is not None:
            for key in _band_keys(of, words, hashes, rows):
                for other, name in bands.get(key, ()):
                    alike = sum(a == b for a, b in zip(hashes, other, strict=True)) / NUM_HASHES
                    if alike > params.max_similarity:
                        return Verdict("similar instruction", f"{alike:.2f} to that of {name}")
            for key in _band_keys(of, words, hashes, rows):
                bands.setdefault(key, []).append((hashes, record.meta.source_id))
        seen[(of, words)] = record.meta.source_id
        return None

    return decide


def _hashes(record: Record) -> list[int]:
    """Return the MinHash of an instruction's word 3-grams."""
    from datasketch import MinHash

    words = normal(record.instruction).split()
    last = max(len(words) - GRAM_WORDS, 0) + 1
    grams = {" ".join(words[n : n + GRAM_WORDS]).encode() for n in range(last)}
    made = MinHash(num_perm=NUM_HASHES, seed=1)
    made.update_batch(grams)
    return [int(value) for value in made.hashvalues]


def _band_rows(similarity: float) -> int:
    """Return how many hashes a band has so that pairs at the threshold nearly always share one."""
    for rows in (8, 4, 2):
        if 1 - (1 - similarity**rows) ** (NUM_HASHES // rows) > 0.98:
            return rows
    return 1


def _band_keys(
    of: str, words: str, hashes: Sequence[int], rows: int
) -> Iterator[tuple[object, ...]]:
    """Yield the buckets of an instruction; other numbers or colours are other buckets."""
    telling = tuple(w for w in words.split() if w in _COLOURS or re.search(r"\d", w))
    for start in range(0, NUM_HASHES, rows):
        yield (of, telling, start, *hashes[start : start + rows])


PLUGIN: Any = Filter(version=1, params=Params, open=open_filter, measure=measure, remembers=True)
