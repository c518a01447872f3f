"""What a picture looks like, in two strengths: a digest of its decoded pixels, and a 64-bit hash.

The digest is equal for equal pixels, whatever the file format. The perceptual hash (pHash: signs of
the low frequencies of a 32 x 32 cosine transform) survives scaling and recompression, but calls
pictures equal that share layout and differ in detail, such as small rendered fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.filters import Measure
from engine.images import ImageBank
from engine.records import Record

if TYPE_CHECKING:
    from PIL.Image import Image

HASH_BITS = 64
REMEMBERED_IMAGES = 65536  # pictures of several rows are decoded once while they are remembered


class Look(NamedTuple):
    """What one picture looks like; as JSON a list of the two."""

    pixels: str  # digest of size and decoded RGB pixels
    hash_bits: int | None  # perceptual hash, where it was asked for


def look_of(picture: Image, *, has_hash: bool) -> Look:
    """Return what a decoded picture looks like."""
    whole = hashlib.blake2b(f"{picture.size}".encode(), digest_size=16)
    whole.update(picture.tobytes())
    return Look(whole.hexdigest(), _perceptual(picture) if has_hash else None)


def looks(bank: ImageBank, *, has_hash: bool) -> Measure:
    """Return what measures the looks of each picture of a record."""

    @lru_cache(maxsize=REMEMBERED_IMAGES)
    def look(digest: str) -> Look:
        return look_of(bank.open(digest), has_hash=has_hash)

    def of(records: Sequence[Record]) -> list[list[Look]]:
        return [[look(digest) for digest in record.images] for record in records]

    return Measure(of, "looks" if has_hash else "pixels")


def _perceptual(picture: Image) -> int:
    import imagehash

    bits = imagehash.phash(picture).hash.flatten()
    return int("".join("1" if bit else "0" for bit in bits), 2)


class NearestHashes:
    """Perceptual hashes seen so far, searched one by one: a tenth of a millisecond for 100 000."""

    def __init__(self) -> None:
        import numpy as np

        self._hashes: Any = np.empty(1024, dtype=np.uint64)
        self._labels: list[str] = []

    def add(self, value: int, label: str) -> None:
        """Remember a hash under a label."""
        import numpy as np

        size = len(self._labels)
        if size == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[size] = value
        self._labels.append(label)

    def within(self, value: int, max_distance_bits: int) -> tuple[str, int] | None:
        """Return label and distance of the nearest hash, the first of equals, if it is near."""
        import numpy as np

        if not self._labels:
            return None
        distances = np.bitwise_count(self._hashes[: len(self._labels)] ^ np.uint64(value))
        place = int(distances.argmin())
        distance = int(distances[place])
        return (self._labels[place], distance) if distance <= max_distance_bits else None


class LookAlikes:
    """Pictures seen so far, found again by equal pixels or, above 0 bits, by a near hash."""

    def __init__(self, max_distance_bits: int) -> None:
        self._max_distance_bits = max_distance_bits
        self._label_by_pixels: dict[bytes, str] = {}
        self._nearest = NearestHashes()

    def find(self, look: Look) -> tuple[str, str] | None:
        """Return the label of a picture that looks like this one, and how much alike they are."""
        label = self._label_by_pixels.get(bytes.fromhex(look.pixels))
        if label is not None:
            return label, "equal pixels"
        if self._max_distance_bits == 0 or look.hash_bits is None:
            return None
        near = self._nearest.within(look.hash_bits, self._max_distance_bits)
        return near and (near[0], f"{near[1]} of {HASH_BITS} bits differ")

    def add(self, look: Look, label: str) -> None:
        """Remember a picture under a label; the first label of equal pixels stays."""
        self._label_by_pixels.setdefault(bytes.fromhex(look.pixels), label)
        if look.hash_bits is not None:
            self._nearest.add(look.hash_bits, label)
