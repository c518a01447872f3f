"""The stages, in the order in which data flows through them."""

from __future__ import annotations

from engine.plan.stage import Stage
from engine.stages import (
    collect,
    convert,
    curate,
    evaluate,
    filter,  # noqa: A004  # a stage is named after what it does
    generate,
    mix,
    repair,
    report,
    seeds,
    synthesizer,
    train,
)

STAGES: tuple[Stage, ...] = (
    collect.STAGE,
    curate.STAGE,
    convert.STAGE,
    seeds.STAGE,
    synthesizer.STAGE,
    generate.STAGE,
    filter.STAGE,
    repair.STAGE,
    mix.STAGE,
    train.STAGE,
    evaluate.ANSWERS,
    evaluate.SCORES,
    report.STAGE,
)
