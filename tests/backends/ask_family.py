"""Asks a tiny model of any family with a backend and prints the answers as JSON."""

from __future__ import annotations

import json
import sys

from engine import plugin
from engine.backends import Choices, ModelFiles, Request, Sampling
from engine.plan.stage import Machine
from engine.records import ImagePart, user
from tests.models import tiny

SIZES = ((64, 64), (80, 40), (40, 90), (100, 100))
COLOURS = ("red", "green", "blue", "black")


def requests() -> list[Request]:
    """Return questions about pictures of several shapes, and one about none."""
    shown = [
        Request((user(ImagePart(0), f"What is it{'?' * number}"),), (tiny.picture(colour, size),))
        for number, colour in enumerate(COLOURS, 1)
        for size in SIZES
    ]
    return [*shown, Request((user("And what is this?"),))]


def main(backend: str, folder: str) -> None:
    """Print what each request was answered with, and how likely two letters are after it."""
    plug = plugin.load("backends", backend)
    session = plug.open(ModelFiles(folder), plug.params(), Machine())
    done = session.generate(requests(), Sampling(16))
    scored = session.score([Choices(request, ("Y", "N")) for request in requests()])
    found = {
        "raw": [one.raw for one in done],
        "errors": [one.error for one in done],
        "scores": [one.log_probs for one in scored],
    }
    print("ANSWERS" + json.dumps(found), flush=True)
    session.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
