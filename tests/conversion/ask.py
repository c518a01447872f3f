"""Answers one question about one image with a backend and prints the tokens' text as JSON."""

from __future__ import annotations

import json
import sys

from engine import images, plugin
from engine.backends import ModelFiles, Request, Sampling
from engine.plan.stage import Machine
from engine.records import ImagePart, user


def main(backend: str, *folders: str) -> None:
    """Print what the model in each folder says."""
    from PIL import Image

    # Of one colour and of a grid's shape, so that nothing depends on how an engine scales images.
    picture = images.encode_png(Image.new("RGB", (64, 64), (200, 60, 20)))
    request = Request((user(ImagePart(0), "What is shown?"),), (picture,))
    plug = plugin.load("backends", backend)
    said = []
    for folder in folders:
        session = plug.open(ModelFiles(folder), plug.params(), Machine())
        (done,) = session.generate([request], Sampling(24))
        said.append([done.error or done.text, done.num_prompt_tokens])
        session.close()
    print("ANSWERS" + json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
