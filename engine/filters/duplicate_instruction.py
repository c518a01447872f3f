"""Drop tasks whose instruction was asked before, word for word or nearly; the first one stays.

Nearly means: the Jaccard similarity of the sets of word 3-grams, estimated by MinHash and looked up
by banding (Broder 1997; Lee et al. 2022 use the same for training data). Questions that differ only
in a number or a colour are different questions, so those words must be equal.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
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
    rows = _band_rows(params.max_similarity)
    seen = _Seen(num_keys=1 if params.max_similarity >= 1 else 1 + NUM_HASHES // rows)

    def decide(record: Record, hashes: Sequence[int] | None) -> Verdict | None:
        of = record.meta.lineage[0] if params.scope == "pair" and record.meta.lineage else ""
        words = normal(record.instruction)
        same = _digest((of, words))
        bands = [] if hashes is None else [_digest(k) for k in _band_keys(of, words, hashes, rows)]
        hashes = hashes or ()
        for place in seen.places(same):
            return Verdict("same instruction", f"of {seen.names[place]}")
        for place in chain.from_iterable(map(seen.places, bands)):
            alike = seen.likeness(place, hashes)
            if alike > params.max_similarity:
                return Verdict("similar instruction", f"{alike:.2f} to that of {seen.names[place]}")
        seen.add((same, *bands), hashes, record.meta.source_id)
        return None

    return decide


class _Seen:
    """The instructions that stayed, found by keys.

    Flat arrays take 0.7 KB per instruction, a dict of lists 8 KB. None can be forgotten when its
    pair is over: two equal pairs have one id and may be far apart.
    """

    def __init__(self, num_keys: int) -> None:
        self.names: list[str] = []
        self._num_keys = num_keys
        self._hashes: list[bytes] = []
        self._keys = array("Q")
        self._last = array("i", [-1]) * 64  # bucket -> the last key in it
        self._before = array("i")  # key -> the key before it in its bucket

    def add(self, keys: Sequence[int], hashes: Sequence[int], name: str) -> None:
        """Remember an instruction."""
        assert len(keys) == self._num_keys
        is_repeated = self.names[-1:] == [name]  # as of all tasks of a pair
        self.names.append(self.names[-1] if is_repeated else name)
        self._hashes.append(array("I", hashes).tobytes())
        for key in keys:
            self._keys.append(key)
            self._before.append(-1)
        if len(self._keys) > len(self._last):
            self._last = array("i", [-1]) * (2 * len(self._last))
            self._link(range(len(self._keys)))
        else:
            self._link(range(len(self._keys) - len(keys), len(self._keys)))

    def _link(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            bucket = self._keys[number] % len(self._last)
            self._before[number], self._last[bucket] = self._last[bucket], number

    def places(self, key: int) -> list[int]:
        """Return the instructions that have a key, oldest first."""
        found = []
        at = self._last[key % len(self._last)]
        while at >= 0:
            if self._keys[at] == key:
                found.append(at // self._num_keys)
            at = self._before[at]
        return found[::-1]

    def likeness(self, place: int, hashes: Sequence[int]) -> float:
        """Return the estimated similarity of an instruction to one with these hashes."""
        other = memoryview(self._hashes[place]).cast("I")
        return sum(a == b for a, b in zip(hashes, other, strict=True)) / NUM_HASHES


def _digest(key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")


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
