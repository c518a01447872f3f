"""Answers fixed requests with a backend and prints the texts as JSON: run by the parity test."""

from __future__ import annotations

import json
import random
import sys

from engine import images, package_data, plugin
from engine.backends import ModelFiles, Request, Sampling
from engine.plan.stage import Machine
from engine.pocket import captions, facts, shapes
from engine.records import ImagePart, assistant, user

QUESTIONS = ("How many objects are there in all?", "What is shown?", "Describe the image.")
NUM_SCENES = 4


def requests(model: str) -> list[Request]:
    """Return the requests that suit a pocket model."""
    if model == "judge":
        text = "Question: How many {n} are there?\nInformative answer: There are two {n}."
        text += "\nPrecise answer: 2\nConsistent:"
        return [Request((user(text.format(n=n)),), is_raw=True) for n in ("rings", "wugs")]
    found = []
    for index in range(NUM_SCENES):
        scene = shapes.scene(77, "parity", index)
        picture = (images.encode_png(shapes.draw(scene)),)
        if model == "base":
            found += [Request((user(ImagePart(0), q),), picture) for q in QUESTIONS]
            continue
        rng = random.Random(index)
        caption = captions.caption(facts.renamed_facts(scene, rng), rng, is_scientific=True)
        turns = (user(ImagePart(0), "Describe the image."), assistant(caption))
        found.append(Request(turns, picture, "user"))
    return found


def main(backend: str, model: str) -> None:
    """Print the turns that each request was answered with."""
    plug = plugin.load("backends", backend)
    files = ModelFiles(str(package_data.pocket_model(model)))
    session = plug.open(files, plug.params(), Machine())
    done = session.generate(requests(model), Sampling(100))
    print("ANSWERS" + json.dumps([[turn.text for turn in c.turns] for c in done]), flush=True)
    session.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
