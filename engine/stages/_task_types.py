"""Types of visual tasks, to ask a generator for and to count what it wrote.

The twenty by which Cheng et al. 2024 (appendix G) grade how diverse tasks are, each with what it
means in words of our own. A recipe may name further ones; their name is then all that is known.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

TASK_TYPES: Mapping[str, str] = {
    "domain_classification": "which class of its field the whole image belongs to",
    "object_recognition": "which object, organ, dish or structure a thing in the image is",
    "pose_activity": "what somebody or something is doing, or how it is posed",
    "logo": "which brand, institution or emblem a sign stands for",
    "face_expression": "whose face it is in general terms, or what it expresses",
    "scene": "what kind of place or setting is shown",
    "sentiment": "which mood or feeling the image conveys",
    "caption": "a description of the image in one or more sentences",
    "text_ocr": "what is written in the image",
    "image_text_matching": "whether a given statement agrees with the image",
    "anomaly": "what is unusual, damaged, missing or wrong",
    "style": "how the image was made: technique, modality, stain, art style",
    "attribute": "a property of something shown: colour, size, number, place, relation, context",
    "task_oriented_recognition": "what a person with a given task must find or decide here",
    "step_by_step": "the steps that lead to a result or that follow from what is shown",
    "data_representation": "what a chart, table, map or diagram says",
    "utility_affordance": "what something shown is used for or good for",
    "visual_grounding": "where in the image something is",
    "segmentation": "which parts or regions the image consists of",
    "storytelling": "a short story or explanation of how the situation came about",
}


def described(name: str) -> str:
    """Return what a type of task asks; for one that is not in the table, its name in words."""
    return TASK_TYPES.get(name, name.replace("_", " "))


def drawn(weights: Mapping[str, float], num: int, rng: random.Random) -> list[str]:
    """Draw types by weight, each at most once until all were drawn; none without weights."""
    wanted: list[str] = []
    left: dict[str, float] = {}
    while weights and len(wanted) < num:
        left = left or {name: weight for name, weight in weights.items() if weight > 0}
        (chosen,) = rng.choices(list(left), weights=list(left.values()))
        wanted.append(chosen)
        del left[chosen]
    return wanted
