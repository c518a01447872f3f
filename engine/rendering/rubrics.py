"""What a person grades a task by: the rubrics and the task types of the paper's human scoring.

Source: Cheng et al. 2024, appendix G. It says what 5, 4 and 3 mean for accuracy and names the 20
types; the words for the other levels are ours. Scales are reported from 0 to 100: the lowest level
is 0, the highest 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TYPES = (
    "domain classification",
    "object recognition",
    "pose or activity",
    "logo recognition",
    "face or expression",
    "scene recognition",
    "sentiment analysis",
    "caption generation",
    "text recognition",
    "image-text matching",
    "anomaly detection",
    "style recognition",
    "attribute or context",
    "task-oriented recognition",
    "step-by-step guidance",
    "data representation",
    "utility or affordance",
    "visual grounding",
    "segmentation",
    "storytelling",
)


@dataclass(frozen=True, slots=True)
class Rubric:
    """One question to the grader, and what may be said."""

    name: str
    question: str
    levels: tuple[str, ...]  # what each answer means; of a scale the lowest first
    values: tuple[Any, ...]  # how each is stored: 1 to 5, true or false, a type
    keys: str  # what a person presses for each

    @property
    def is_scale(self) -> bool:
        """Tell whether its answers have an order that means something."""
        return self.values == SCALE

    def level(self, value: object) -> int | None:
        """Return which of its answers a stored value is; None for what is none."""
        for level, known in enumerate(self.values):
            if type(value) is type(known) and value == known:
                return level
        return None


SCALE = (1, 2, 3, 4, 5)
NO_TYPE = "none of these"
TYPE = Rubric(
    "type",
    "Which type of task is it?",
    (*TYPES, NO_TYPE),
    (*TYPES, NO_TYPE),
    "abcdefghijklmnopqrtwx",  # s, u, v and z move about
)
KNOWLEDGE = Rubric(
    "knowledge",
    "How much knowledge of the domain does it take?",
    (
        "none: anybody could answer",
        "little: everyday knowledge",
        "some: a layman who is interested",
        "much: a student of the field",
        "expert: years in the field",
    ),
    SCALE,
    "12345",
)
COMPLEXITY = Rubric(
    "complexity",
    "How complex is the instruction?",
    (
        "trivial: one look, one word",
        "simple: one fact",
        "middling: some facts together",
        "complex: several steps of thought",
        "very complex: steps that build on one another",
    ),
    SCALE,
    "12345",
)
ACCURACY = Rubric(
    "accuracy",
    "Are the answers right? The informative one is the reasoning, the precise one the conclusion.",
    (
        "both wrong, beside the point",
        "both wrong, but on the subject",
        "only the reasoning is right",
        "only the conclusion is right",
        "reasoning and conclusion are right",
    ),
    SCALE,
    "12345",
)
CONSISTENCY = Rubric(
    "consistency", "Do the two answers say the same?", ("no", "yes"), (False, True), "12"
)
RUBRICS = (TYPE, KNOWLEDGE, COMPLEXITY, ACCURACY, CONSISTENCY)
BY_NAME = {rubric.name: rubric for rubric in RUBRICS}
# What an accuracy says of each answer alone, as the paper's table 7 tells them.
DERIVED = {"reasoning right": (3, 5), "conclusion right": (4, 5)}
