"""The page of `adapt review`: fixed bytes that name no other file, and the headers that go with it.

Style and script are in the page, and the policy lets these two run and nothing else: each is named
by its digest. What is graded comes as JSON and is only ever put in place as text.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@cache
def html() -> str:
    """Return the page."""
    whole = _text("html").replace("/* style */", _text("css"))
    return whole.replace("/* script */", _text("js"))


@cache
def policy() -> str:
    """Return its Content-Security-Policy."""
    rules = {
        "default-src": "'none'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "style-src": _digest(_text("css")),
        "script-src": _digest(_text("js")),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


@cache
def _text(kind: str) -> str:
    path = Path(__file__).parent / f"review.{kind}"
    return path.read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
