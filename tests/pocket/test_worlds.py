"""The rendered worlds: the same seed gives the same row, and the new domain is new."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from engine import images
from engine.pocket import (
    boards,
    captions,
    cell_captions,
    cell_questions,
    cells,
    facts,
    judge_items,
    shapes,
    tasks,
)
from engine.pocket.cell_truth import is_true

NEW_WORDS = (
    *cells.CELL_TYPES,
    *cells.STAINS,
    "velosis",
    "spinosis",
    "bacillosis",
    "plethoria",
    "normosis",
)


def test_the_same_seed_draws_the_same_bytes():
    first = images.encode_png(cells.draw(cells.field(1, "train", 7)))
    second = images.encode_png(cells.draw(cells.field(1, "train", 7)))

    assert first == second


def test_splits_share_no_picture():
    train = {images.encode_png(cells.draw(cells.field(0, "train", i))) for i in range(150)}
    test = {images.encode_png(cells.draw(cells.field(0, "test", i))) for i in range(150)}

    assert not train & test


def test_yes_no_questions_are_balanced():
    answers = Counter(q.answer for q in _questions(600) if q.kind == "yes_no")

    assert 0.45 < answers["yes"] / answers.total() < 0.55


def test_no_constant_choice_gets_more_than_chance():
    choices = [q for q in _questions(600) if q.kind == "choice"]
    right_at = Counter(q.options.index(q.answer) for q in choices)

    assert all(0.26 < right_at[place] / len(choices) < 0.40 for place in range(3))


def test_every_field_gets_one_question_of_each_kind():
    kinds = Counter(q.kind for q in _questions(100))

    assert kinds == {"yes_no": 100, "one_word": 100, "count": 100, "choice": 100}


def test_seed_texts_and_general_texts_never_name_the_new_domain():
    for index in range(1500):
        rng = random.Random(index)
        scene = shapes.scene(0, "any", index)
        told = facts.renamed_facts(scene, rng) if index % 2 else facts.plain_facts(scene, rng)
        text = captions.caption(told, rng, is_scientific=True)
        text += " ".join(
            f"{task.instruction} {task.informative} {task.precise}"
            for task in tasks.draw_tasks(told, rng, 3, tasks.SEEDS)
        )
        assert not any(re.search(rf"\b{word}", text.lower()) for word in NEW_WORDS), text


def test_captions_of_fields_say_only_what_is_true():
    for index in range(300):
        field = cells.field(0, "train", index)
        caption = cell_captions.cell_caption(field, random.Random(index)).lower()
        negated = re.findall(r"(?:no|without|no sign of) (\w+?)s\b|(\w+?)s are absent", caption)
        absent = {name for pair in negated for name in pair if name}
        assert not absent & {name for name, _ in field.counts}
        for finding in cells.FINDINGS:
            assert finding not in caption or finding == field.finding


@pytest.mark.parametrize(
    ("instruction", "precise", "truth"),
    [
        ("How many velocytes are there?", "3", True),
        ("How many velocytes are there?", "4", False),
        ("Are there any torocytes?", "no", True),
        ("Are any velocytes present?", "no", False),
        ("Which kind is the most common?", "velocyte", True),
        ("Which kind is the most common?", "bacillocyte", False),
        ("What is the finding?", "bacillosis", True),
        ("Name the stain.", "cyrine", False),
        ("How are they arranged?", "in a ring", True),
        ("What colour are the velocytes?", "purple", True),
        ("What colour are the velocytes?", "blue", False),
        ("Describe the picture.", "velocytes on eoline", None),
    ],
)
def test_truth_of_a_task_is_read_from_the_scene(instruction, precise, truth):
    field = cells.Field((("velocyte", 3), ("bacillocyte", 1)), "in a ring", "eoline", "x")

    assert is_true(field, instruction, precise) is truth


def test_a_stain_that_the_caption_keeps_to_itself_is_never_asked_for():
    for index in range(400):
        rng = random.Random(index)
        told = facts.renamed_facts(shapes.scene(0, "any", index), rng)
        caption = captions.caption(told, rng, is_scientific=True)
        known = facts.told_by(caption, told)
        for task in tasks.draw_tasks(known, rng, 4, tasks.SEEDS):
            if told.background not in caption.lower():
                assert task.precise != told.background


def test_a_board_names_what_a_square_shows():
    scene = shapes.medley(0, "any", 1)
    told = facts.plain_facts(scene, random.Random(0))
    words = boards.board(told).precise.split()[1:]
    kinds, colours = words[:16], words[16:]

    assert len(words) == 32
    for group, x, y in shapes.placed(scene):
        square = int(y // 16) * 4 + int(x // 16)
        assert kinds[square] != "no"
        assert colours[square] != "no"
        if scene.total == 1:
            assert (kinds[square], colours[square]) == (group.shape.split()[0], group.colour)
    assert [kind == "no" for kind in kinds] == [colour == "no" for colour in colours]


def test_the_wrong_options_of_a_background_are_backgrounds():
    for index in range(200):
        rng = random.Random(index)
        told = facts.plain_facts(shapes.scene(0, "any", index), rng)
        task = tasks.choice(told, rng)
        if task is not None and task.precise == told.background:
            options = re.findall(r"\w+", task.instruction)
            assert sum(option in shapes.BACKGROUNDS for option in options) >= 2


def test_judge_items_have_all_three_labels_and_no_item_contradicts_its_label():
    items = [judge_items.judge_item(0, "train", index) for index in range(600)]
    share = Counter(item.label for item in items)

    assert share["Yes"] > 200
    assert share["No"] > 180
    assert share["Open"] > 50


def _questions(num_fields: int) -> list[cell_questions.Question]:
    return [
        question
        for index in range(num_fields)
        for question in cell_questions.field_questions(
            cells.field(0, "test", index), random.Random(index)
        )
    ]
