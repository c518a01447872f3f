"""Builds questions and puts answers to a scorer."""

from __future__ import annotations

from collections.abc import Sequence

from engine import plugin
from engine.records import Kind, Meta, Record, assistant, make_record, user
from engine.scorers import Score


def question(*references: str, options: Sequence[str] = (), text: str = "What is it?") -> Record:
    turns = (user(text), *(assistant(reference) for reference in references))
    return make_record((), turns, Meta(Kind.QUESTION, "q", extra={"options": list(options)}))


def score(
    scorer: str, metric: str, answer: str, *references: str, options: Sequence[str] = ()
) -> Score:
    rule = plugin.load("scorers", scorer).metrics[metric]
    found: Score = rule(question(*references, options=options), answer)
    return found
