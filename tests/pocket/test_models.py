"""The shipped weights: sizes, and that the synthesizer reads its inputs."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from engine import images, package_data, prompts
from engine.backends import Completion, ModelFiles, Request, Sampling
from engine.backends.transformers import Params, open_session
from engine.catalog import prompt_text
from engine.plan.stage import Machine
from engine.pocket import captions, facts, shapes
from engine.records import ImagePart, assistant, user
from engine.training import dialogue
from engine.training.dialogue import Task

MODELS = ("base", "synthesizer", "judge")
NUM_PROBES = 60
MEBIBYTE = 2**20


@pytest.mark.parametrize("name", MODELS)
def test_a_pocket_model_has_at_most_12_mb(name: str):
    assert _size(package_data.pocket_model(name)) <= 12 * MEBIBYTE


def test_all_pocket_models_together_have_at_most_30_mb():
    assert sum(_size(package_data.pocket_model(name)) for name in MODELS) <= 30 * MEBIBYTE


def test_the_synthesizer_copies_words_it_has_never_seen(completions):
    told, answers = completions
    tasks = [_task(completion) for completion in answers]
    mentions = [
        task is not None and any(word in _text(task) for word in _new_words(one))
        for one, task in zip(told, tasks, strict=True)
    ]

    assert sum(mentions) / len(mentions) >= 0.8


def test_the_synthesizer_looks_at_the_image(session, probes):
    told, requests = probes
    pictures = [request.images for request in requests]
    asked = [
        Request((*request.turns, user(_colour_question(one))), request.images)
        for one, request in zip(told, requests, strict=True)
    ]
    swapped = [
        Request(request.turns, other)
        for request, other in zip(asked, pictures[1:] + pictures[:1], strict=True)
    ]
    before = [completion.text for completion in session.generate(asked, Sampling(20))]
    after = [completion.text for completion in session.generate(swapped, Sampling(20))]

    assert sum(a != b for a, b in zip(before, after, strict=True)) >= NUM_PROBES // 2


@pytest.fixture(scope="module")
def session():
    """The shipped synthesizer."""
    opened = open_session(
        ModelFiles(str(package_data.pocket_model("synthesizer"))), Params(batch_size=32), Machine()
    )
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def probes() -> tuple[list[facts.Facts], list[Request]]:
    """Scenes whose nouns are all made up, on seeds that no training row has."""
    told, requests = [], []
    for index in itertools.count():
        rng = random.Random(f"probe:{index}")
        scene = shapes.scene(99, "probe", index)
        one = facts.renamed_facts(scene, rng)
        if any(kind.noun in shapes.SHAPES for kind in one.kinds):
            continue
        caption = captions.caption(one, rng, is_scientific=True)
        turns = (user(ImagePart(0), "Describe the image."), assistant(caption))
        told.append(one)
        requests.append(Request(turns, (images.encode_png(shapes.draw(scene)),), "user"))
        if len(told) == NUM_PROBES:
            break
    return told, requests


@pytest.fixture(scope="module")
def completions(session, probes) -> tuple[list[facts.Facts], list[Completion]]:
    """What the synthesizer writes about the probes."""
    return probes[0], session.generate(probes[1], Sampling(160))


def _task(completion: Completion) -> Task | None:
    found = dialogue.tasks_from_turns(completion.turns, prompt_text("synthesize@1"))
    return found[0] if isinstance(found, list) else None


def _colour_question(one: facts.Facts) -> str:
    """Return a question that captions mostly leave to the picture."""
    template = prompt_text("synthesize@1")
    instruction = f"What colour are the {one.kinds[0].nouns}?"
    return prompts.render(template, turn="precise", instruction=instruction)


def _text(task: Task) -> str:
    return f"{task.instruction} {task.informative} {task.precise}".lower()


def _new_words(one: facts.Facts) -> list[str]:
    words = [kind.noun for kind in one.kinds] + [noun for noun, _ in one.absent]
    words += [one.background, one.label or ""]
    return [word.lower() for word in words if word and word not in shapes.SHAPES]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
