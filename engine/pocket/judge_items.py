"""Rows for the text judge: do both answers to an instruction agree? Yes, No, or Open."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.pocket.canvas import ARRANGEMENTS
from engine.pocket.facts import Facts, Task, renamed_facts
from engine.pocket.shapes import COLOURS, scene
from engine.pocket.tasks import SEEDS, draw_tasks, open_ended
from engine.pocket.words import made_up_word


@dataclass(frozen=True, slots=True)
class JudgeItem:
    """One row: what the judge reads, and the label it should write."""

    instruction: str
    informative: str
    precise: str
    label: str  # Yes, No or Open


def judge_item(seed: int, split: str, index: int) -> JudgeItem:
    """Return item number `index` of a split; labels are drawn at 45 / 40 / 15 percent."""
    rng = random.Random(f"judge:{seed}:{split}:{index}")
    facts = renamed_facts(scene(seed, f"judge-{split}", index), rng)
    drawn = rng.random()
    if drawn < 0.15:
        return _item(open_ended(facts, rng), "Open")
    (task,) = draw_tasks(facts, rng, 1, SEEDS[:-1])
    if drawn < 0.6:
        return _item(task, "Yes")
    return _item(_broken(task, facts, rng), "No")


def _item(task: Task, label: str) -> JudgeItem:
    return JudgeItem(task.instruction, task.informative, task.precise, label)


def _broken(task: Task, facts: Facts, rng: random.Random) -> Task:
    """Return the task with a precise answer that does not follow from the informative one."""
    return Task(task.kind, task.instruction, task.informative, _wrong(task, facts, rng))


def _wrong(task: Task, facts: Facts, rng: random.Random) -> str:
    if rng.random() < 0.08:
        return rng.choice(("yes", "no", "3", "red", made_up_word(rng), facts.arrangement + " on"))
    if task.precise in ("yes", "no"):
        return "no" if task.precise == "yes" else "yes"
    if task.precise.isdigit():
        near = [n for n in range(1, 9) if n != int(task.precise)]
        return str(rng.choice(near))
    if task.kind == "colour":
        return rng.choice([colour for colour in COLOURS if colour != task.precise])
    if task.kind == "arrangement":
        return rng.choice([a for a in ARRANGEMENTS if a != task.precise])
    return _other_name(task, facts, rng)


def _other_name(task: Task, facts: Facts, rng: random.Random) -> str:
    if task.kind == "more":
        return next(
            kind.nouns
            for kind in facts.kinds
            if kind.nouns in task.instruction and kind.nouns != task.precise
        )
    names = [kind.noun for kind in facts.kinds] + [name for name, _ in facts.absent]
    names += [facts.label] if facts.label else []
    wrong = [name for name in names if name not in task.informative and name != task.precise]
    if wrong and rng.random() < 0.5:
        return rng.choice(wrong)
    return _misspelt(task.precise, rng) if rng.random() < 0.5 else made_up_word(rng)


def _misspelt(word: str, rng: random.Random) -> str:
    """Return a word with a piece replaced: how a weak copier goes wrong."""
    place = rng.randrange(max(len(word) - 2, 1))
    piece = made_up_word(rng)[:3]
    changed = word[:place] + piece + word[place + 2 :]
    return changed if changed != word else word + piece
