"""Answers fixed requests with a backend and prints the texts as JSON: run by the parity test."""

from __future__ import annotations

import json
import random
import sys

from engine import images, package_data, plugin
from engine.backends import Choices, ModelFiles, Request, Sampling
from engine.plan.stage import Machine
from engine.pocket import captions, facts, judge_items, shapes
from engine.records import ImagePart, assistant, user

QUESTIONS = ("How many objects are there in all?", "What is shown?", "Describe the image.")
NUM_REQUESTS = {"base": 100, "synthesizer": 50, "judge": 50}
LABELS = ("Yes", "No", "Open")
GREEDY = Sampling(100)


def requests(model: str, count: int | None = None) -> list[Request]:
    """Return the requests that suit a pocket model."""
    make = {"base": _question, "synthesizer": _caption, "judge": _item}[model]
    return [make(number) for number in range(count or NUM_REQUESTS[model])]


def _question(number: int) -> Request:
    scene = shapes.scene(77, "parity", number // len(QUESTIONS))
    picture = (images.encode_png(shapes.draw(scene)),)
    return Request((user(ImagePart(0), QUESTIONS[number % len(QUESTIONS)]),), picture)


def _caption(number: int) -> Request:
    scene = shapes.scene(77, "parity", number)
    picture = (images.encode_png(shapes.draw(scene)),)
    rng = random.Random(number)
    caption = captions.caption(facts.renamed_facts(scene, rng), rng, is_scientific=True)
    turns = (user(ImagePart(0), "Describe the image."), assistant(caption))
    return Request(turns, picture, "user")


def _item(number: int) -> Request:
    item = judge_items.judge_item(77, "parity", number)
    text = f"Question: {item.instruction}\nInformative answer: {item.informative}"
    return Request((user(f"{text}\nPrecise answer: {item.precise}\nConsistent:"),))


def main(backend: str, model: str) -> None:
    """Print what each request was answered with, and how likely labels are after it."""
    plug = plugin.load("backends", backend)
    files = ModelFiles(str(package_data.pocket_model(model)))
    session = plug.open(files, plug.params(), Machine())
    asked = requests(model)
    found = {
        "raw": [one.raw for one in session.generate(asked, GREEDY)],
        "scores": [one.log_probs for one in session.score([Choices(r, LABELS) for r in asked])],
    }
    print("ANSWERS" + json.dumps(found), flush=True)
    session.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
