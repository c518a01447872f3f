"""What judges that choose among labels have in common: reading log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engine.records import Record

DIGITS = 4  # of what is noted: the last bits are the machine's


class Said(NamedTuple):
    """What a judge said: how likely its labels are together, and among each other."""

    mass: float
    label: str  # the likeliest, in small letters
    yes: float  # probability of the first label among the labels
    lead: float  # of the first label over the next one, in natural log-probability

    def notes(self, log_probs: Sequence[float]) -> dict[str, Any]:
        """Return what goes along with a task."""
        return {
            "label": self.label,
            "score": round(self.yes, DIGITS),
            "log_probs": [round(value, DIGITS) for value in log_probs],
        }


def said(log_probs: Sequence[float], labels: Sequence[str]) -> Said:
    """Read the log-probabilities of labels, of which the first one is the good one."""
    likely = [math.exp(value) for value in log_probs]
    mass = sum(likely)
    best = max(range(len(labels)), key=lambda place: log_probs[place])
    lead = log_probs[0] - max(log_probs[1:])
    return Said(mass, labels[best].lower(), likely[0] / mass if mass else 0.0, lead)


def after(prompt: str, labels: Sequence[str], *, is_raw: bool) -> tuple[str, ...]:
    """Return labels as they follow a prompt: with a space where a bare text ends in a word."""
    needs_space = is_raw and not prompt[-1:].isspace()
    return tuple(f" {label}" if needs_space else label for label in labels)


def texts_of(record: Record) -> Mapping[str, str]:
    """Return the texts of a task that templates are given."""
    return {
        "instruction": record.instruction,
        "informative": record.answer("informative"),
        "precise": record.answer("precise"),
    }
