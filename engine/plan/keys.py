"""Keys: SHA-256 of canonical JSON, so a comment, key order or `1e-4` for `0.0001` never matter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Made once: `json.dumps` makes one a call, which is most of the price of a short text.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical(value: Any) -> str:
    """Return sorted, compact JSON. Raise ValueError for NaN or infinity, which JSON cannot say."""
    return _ENCODER.encode(value)


def canonical_object(parts: Mapping[str, str]) -> str:
    """Return the canonical JSON of an object: plain words -> values as canonical JSON."""
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()
