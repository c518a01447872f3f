"""What a picture looks like, in two strengths: a digest of its decoded pixels, and a 64-bit hash.

The digest is equal for equal pixels, whatever the file format. The perceptual hash (pHash: signs of
the low frequencies of a 32 x 32 cosine transform) survives scaling and recompression, but calls
pictures equal that share layout and differ in detail, such as small rendered fields.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from engine.images import ImageBank

HASH_BITS = 64


class Signatures:
    """Signatures of the images of a bank; each is computed once, when first asked for."""

    def __init__(self, bank: ImageBank) -> None:
        self._bank = bank
        self._pixels: dict[str, bytes] = {}
        self._hashes: dict[str, int] = {}

    def pixels(self, digest: str) -> bytes:
        """Return the digest of an image's size and decoded RGB pixels."""
        if digest not in self._pixels:
            picture = self._bank.open(digest)
            whole = hashlib.blake2b(f"{picture.size}".encode(), digest_size=16)
            whole.update(picture.tobytes())
            self._pixels[digest] = whole.digest()
        return self._pixels[digest]

    def perceptual(self, digest: str) -> int:
        """Return an image's perceptual hash."""
        if digest not in self._hashes:
            import imagehash

            bits = imagehash.phash(self._bank.open(digest)).hash.flatten()
            self._hashes[digest] = int("".join("1" if bit else "0" for bit in bits), 2)
        return self._hashes[digest]


@lru_cache(maxsize=8)
def signatures_of(bank: ImageBank) -> Signatures:
    """Return the signatures of a bank; filters on the same bank share them."""
    return Signatures(bank)


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

    def find(self, signatures: Signatures, digest: str) -> tuple[str, str] | None:
        """Return the label of a picture that looks like this one, and how much alike they are."""
        label = self._label_by_pixels.get(signatures.pixels(digest))
        if label is not None:
            return label, "equal pixels"
        if self._max_distance_bits == 0:
            return None
        near = self._nearest.within(signatures.perceptual(digest), self._max_distance_bits)
        return near and (near[0], f"{near[1]} of {HASH_BITS} bits differ")

    def add(self, signatures: Signatures, digest: str, label: str) -> None:
        """Remember a picture under a label; the first label of equal pixels stays."""
        self._label_by_pixels.setdefault(signatures.pixels(digest), label)
        if self._max_distance_bits > 0:
            self._nearest.add(signatures.perceptual(digest), label)
