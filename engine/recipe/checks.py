"""What a schema cannot say: which parts of a recipe need each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.diagnostics import Diagnostic
from engine.recipe.benchmarks import HOLDOUT
from engine.recipe.subject import Subject


def part_defaults(instance: Mapping[str, Any]) -> dict[str, float]:
    """Return how much of each part enters when the recipe does not say."""
    has_source = instance.get("source") is not None
    has_tasks = has_source and instance.get("generator") is not None
    return {"synthetic": float(has_tasks), "captions": float(has_source), "replay": 0.0}


def mistakes(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    """Return the sections of a well-formed recipe that do not fit together."""
    written = instance.get("mix", {}).get("parts", {})
    parts = part_defaults(instance) | written
    return [
        *_generator_without_source(instance, subject),
        *_parts_without_origin(instance, written, subject),
        *_nothing_to_train_on(parts, subject),
        *_two_stages_without_tasks(instance, parts, subject),
        *_adapters_on_random_weights(instance, subject),
        *_holdout_without_source(instance, subject),
    ]


def _generator_without_source(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    if instance.get("generator") is None or instance.get("source") is not None:
        return []
    message = "`generator` has no image-caption pairs to make tasks of: there is no `source`"
    hint = "add a `source`, or remove the `generator`"
    return [Diagnostic("needs-section", message, subject.key("generator"), hint)]


def _parts_without_origin(
    instance: Mapping[str, Any], written: Mapping[str, float], subject: Subject
) -> list[Diagnostic]:
    needs = {
        "captions": ("source", instance.get("source")),
        "synthetic": ("generator", instance.get("generator")),
        "replay": ("mix.replay", instance.get("mix", {}).get("replay")),
    }
    return [
        Diagnostic(
            "needs-section",
            f"`mix.parts.{part}` is {written[part]}, but there is no `{section}`",
            subject.value("mix", "parts", part),
            f"add `{section}`, or set the part to 0",
        )
        for part, (section, value) in needs.items()
        if written.get(part, 0) > 0 and value is None
    ]


def _nothing_to_train_on(parts: Mapping[str, float], subject: Subject) -> list[Diagnostic]:
    if any(amount > 0 for amount in parts.values()):
        return []
    message = "there is nothing to train on: no part of the mix is above 0"
    hint = "add a `source`, or raise one of `mix.parts`"
    return [Diagnostic("empty-mix", message, subject.key("mix", "parts"), hint)]


def _two_stages_without_tasks(
    instance: Mapping[str, Any], parts: Mapping[str, float], subject: Subject
) -> list[Diagnostic]:
    if instance.get("mix", {}).get("pipeline") != "two_stage":
        return []
    return [
        Diagnostic(
            "empty-stage",
            f"the pipeline `two_stage` trains on {what} in its {which} stage, but "
            f"`mix.parts.{part}` is 0",
            subject.value("mix", "pipeline"),
            "use `single_stage`, or raise the part",
        )
        for part, what, which, amount in (
            ("captions", "captions", "first", parts["captions"]),
            ("synthetic", "tasks", "second", parts["synthetic"] + parts["replay"]),
        )
        if amount == 0
    ]


def _adapters_on_random_weights(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    base = instance["base"]
    if base.get("weights") != "random" or base.get("method") != "lora":
        return []
    message = "`base.method` is lora, but low-rank adapters cannot train random weights"
    return [Diagnostic("conflict", message, subject.value("base", "method"), "use `method: full`")]


def _holdout_without_source(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    if instance.get("source") is not None:
        return []
    message = f"the benchmark `{HOLDOUT}` is a share of the pairs, but there is no `source`"
    chosen = instance.get("benchmarks", {})
    return [
        Diagnostic("needs-section", message, subject.value("benchmarks", group, index))
        for group in ("domain", "general")
        for index, name in enumerate(chosen.get(group, ()))
        if name == HOLDOUT
    ]
