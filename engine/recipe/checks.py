"""What a schema cannot say: which parts of a recipe need each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine import plugin
from engine.diagnostics import Diagnostic, Note
from engine.recipe import params, prompts
from engine.recipe.benchmarks import HOLDOUT
from engine.recipe.model import BenchmarkSpec
from engine.recipe.schema import default
from engine.recipe.source import Place
from engine.recipe.subject import Subject

_WHERE = ("dataset", "config", "path", "world", "seed")  # settings that say which rows
_OWN_MODELS = ("pocket/", ".", "/", "~")  # judges that may have been trained on their prompt
_LABELS = {"Yes", "No"}
CLIP = "openai/clip-vit-large-patch14-336"


def part_defaults(instance: Mapping[str, Any]) -> dict[str, float]:
    """Return how much of each part enters when the recipe does not say."""
    has_source = instance.get("source") is not None
    has_tasks = has_source and instance.get("generator") is not None
    return {"synthetic": float(has_tasks), "captions": float(has_source), "replay": 0.0}


def mistakes(
    instance: Mapping[str, Any], specs: Mapping[str, BenchmarkSpec], subject: Subject
) -> list[Diagnostic]:
    """Return the sections of a well-formed recipe that do not fit together."""
    written = instance.get("mix", {}).get("parts", {})
    parts = part_defaults(instance) | written
    return [
        *_generator_without_source(instance, subject),
        *_parts_without_origin(instance, written, subject),
        *_nothing_to_train_on(parts, subject),
        *_two_stages_without_tasks(instance, parts, subject),
        *_adapters_on_random_weights(instance, subject),
        *_layouts(instance, subject),
        *_holdout_without_source(instance, subject),
        *_benchmarks_that_are_trained_on(instance, specs, subject),
        *_benchmarks_in_both_panels(instance, subject),
        *_replay_for_nothing(instance, parts, subject),
        *_rate_of_a_part_that_does_not_learn(instance, subject),
        *_batches(instance, subject),
        *_judges_without_labels(instance, subject),
        *_settings_of_another_generator(instance, subject),
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


def _layouts(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    """Return the models whose layout and vision tower do not fit together."""
    result = []
    for section in ("generator", "base"):
        model = instance.get(section) or {}
        layout, tower = model.get("layout", "huggingface"), model.get("vision_tower")
        if layout == "llava" and tower is None:
            message = f"`{section}.layout` is llava, but there is no `{section}.vision_tower`"
            hint = f"most saw with `vision_tower: {{model: {CLIP}}}`; `mm_vision_tower` in their "
            hint += "config.json tells"
            place = subject.value(section, "layout")
            result.append(Diagnostic("needs-section", message, place, hint))
        if layout == "huggingface" and tower is not None:
            message = f"`{section}.vision_tower` is given, but a model of the layout huggingface "
            message += "holds its own"
            hint = "add `layout: llava`, or remove the tower"
            place = subject.key(section, "vision_tower")
            result.append(Diagnostic("unused", message, place, hint))
    base = instance["base"]
    if base.get("weights") == "random" and base.get("layout") == "llava":
        message = "`base.layout` is llava, but random weights begin from a config that is converted"
        place = subject.value("base", "layout")
        hint = "use `weights: pretrained`, or a model of the layout huggingface"
        result.append(Diagnostic("conflict", message, place, hint))
    return result


def _holdout_without_source(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    if instance.get("source") is not None:
        return []
    message = f"the benchmark `{HOLDOUT}` is a share of the pairs, but there is no `source`"
    return [
        Diagnostic("needs-section", message, subject.value(*place))
        for place, name in _named_benchmarks(instance)
        if name == HOLDOUT
    ]


def _named_benchmarks(instance: Mapping[str, Any]) -> list[tuple[Place, str]]:
    chosen = instance.get("benchmarks", {})
    return [
        (("benchmarks", panel, index), name)
        for panel in ("domain", "general")
        for index, name in enumerate(chosen.get(panel, ()))
    ]


def _benchmarks_that_are_trained_on(
    instance: Mapping[str, Any], specs: Mapping[str, BenchmarkSpec], subject: Subject
) -> list[Diagnostic]:
    """Return the benchmarks whose rows are training rows as well: their scores mean nothing."""
    trained = {
        ("source",): instance.get("source"),
        ("generator", "tune", "seed_tasks"): _at(instance, "generator", "tune", "seed_tasks"),
        ("mix", "replay"): _at(instance, "mix", "replay"),
    }
    rows = {place: _rows_of(use["use"], use) for place, use in trained.items() if use}
    return [
        Diagnostic(
            "trained-on",
            f"the benchmark `{name}` asks about the rows that `{subject.name(place)}` trains on",
            subject.value(*where),
            "use another split or another benchmark",
            (Note("is where they are trained on", subject.key(*place)),),
        )
        for where, name in _named_benchmarks(instance)
        for place, found in rows.items()
        if name in specs and _rows_of(specs[name].source.name, specs[name].source.settings) == found
    ]


def _rows_of(use: str, settings: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what two sources have in common when they read the same rows."""
    if use not in plugin.names("sources"):
        return (object(),)  # a mistake of its own; it equals nothing
    known = params.fragment("sources", use)["properties"]
    found = [settings.get(name, known.get(name, {}).get("default")) for name in _WHERE]
    split = settings.get("split", known.get("split", {}).get("default"))
    return use, *found, split.partition("[")[0] if isinstance(split, str) else split


def _benchmarks_in_both_panels(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    domain = instance.get("benchmarks", {}).get("domain", ())
    return [
        Diagnostic(
            "conflict",
            f"the benchmark `{name}` is a domain benchmark and a general one: a gain on it cannot "
            "be told from forgetting",
            subject.value(*place),
            "keep it in one of the two lists",
        )
        for place, name in _named_benchmarks(instance)
        if place[1] == "general" and name in domain
    ]


def _replay_for_nothing(
    instance: Mapping[str, Any], parts: Mapping[str, float], subject: Subject
) -> list[Diagnostic]:
    if _at(instance, "mix", "replay") is None or parts["replay"] > 0:
        return []
    message = "`mix.replay` names replay rows, but `mix.parts.replay` is 0: no stage trains on them"
    hint = "raise `mix.parts.replay`, or remove `mix.replay`"
    return [Diagnostic("unused", message, subject.key("mix", "replay"), hint)]


def _rate_of_a_part_that_does_not_learn(
    instance: Mapping[str, Any], subject: Subject
) -> list[Diagnostic]:
    rate = _at(instance, "training", "vision_learning_rate")
    learn = instance["base"].get("train", default("recipe", "base", "train"))
    if rate is None or "vision" in learn:
        return []
    message = "`training.vision_learning_rate` is given, but `base.train` leaves vision as it is"
    hint = "add `vision` to `base.train`, or remove the rate"
    place = subject.value("training", "vision_learning_rate")
    return [Diagnostic("unused", message, place, hint)]


def _batches(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    training = instance.get("training", {})
    at_once = training.get("per_device_train_batch_size")
    whole = training.get("global_batch_size", default("recipe", "training", "global_batch_size"))
    if at_once is None or at_once <= whole:
        return []
    message = (
        f"`training.per_device_train_batch_size` is {at_once}, more than a whole batch of {whole}"
    )
    hint = "raise `training.global_batch_size`, or leave the other out: as many rows as fit"
    place = subject.value("training", "per_device_train_batch_size")
    return [Diagnostic("conflict", message, place, hint)]


def _judges_without_labels(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    """Return the judges that nobody tells what to write: neither their training nor the prompt."""
    result = []
    for index, use in enumerate(_at(instance, "filters", "tasks") or ()):
        model = str(_at(use, "judge", "model") or "")
        name = use.get("prompt", "consistency@2")
        if use["use"] != "consistency" or not prompts.is_known(name):
            continue
        words = set(prompts.template_text(name).split())
        if not model.startswith(_OWN_MODELS) and not words >= _LABELS:
            message = (
                f"the prompt `{name}` names no labels, and the judge `{model}` was not trained "
                "to write them"
            )
            place = subject.value("filters", "tasks", index, "prompt")
            hint = "use `consistency@2`, which explains Yes, No and Open"
            result.append(Diagnostic("judge-labels", message, place, hint))
    return result


def equal_arms(instance: Mapping[str, Any], subject: Subject) -> list[Diagnostic]:
    """Return the arms of a matrix that are an earlier one under another name."""
    seen: dict[str, str] = {}
    result = []
    for arm, changes in (instance.get("matrix") or {}).items():
        first = seen.setdefault(json.dumps(changes, sort_keys=True), arm)
        if first != arm:
            message = f"the arm `{arm}` changes what `{first}` changes: both are one experiment"
            place = subject.key("matrix", arm)
            result.append(Diagnostic("equal-arms", message, place, "change or remove one of them"))
    return result


def _at(value: Any, *place: str) -> Any:
    """Return the value at a place of a recipe; None where there is none."""
    for step in place:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _settings_of_another_generator(
    instance: Mapping[str, Any], subject: Subject
) -> list[Diagnostic]:
    """Return settings of the generator that its prompt or its temperature make void."""
    generator = instance.get("generator") or {}
    prompt = generator.get("prompt", "synthesize@1")
    is_dialogue = not prompts.is_known(prompt) or "turn" in prompts.variables(
        prompts.template_text(prompt)
    )
    found = []
    if is_dialogue and generator.get("task_types"):
        message = f"`task_types` are asked for by an order, but `{prompt}` is a dialogue"
        hint = "a tuned synthesizer chooses its types; use `prompt: write_tasks@1`, or remove them"
        found.append(("unused", message, ("generator", "task_types"), hint))
    if not is_dialogue and generator.get("tune") is not None:
        message = f"`tune` teaches a dialogue, but `{prompt}` is an order to an untuned model"
        hint = "use `prompt: synthesize@1`, or remove `tune`"
        found.append(("conflict", message, ("generator", "tune"), hint))
    if generator.get("tune") is not None and generator.get("adapter") is not None:
        message = "`adapter` belongs to the model as it is, but `tune` changes the model first"
        found.append(("conflict", message, ("generator", "adapter"), "remove one of them"))
    if not is_dialogue and generator.get("answer_temperature") is not None:
        message = f"`answer_temperature` asks again in a dialogue, but `{prompt}` is an order"
        found.append(("unused", message, ("generator", "answer_temperature"), "remove it"))
    if generator.get("num_samples", 1) > 1 and not generator.get("temperature"):
        message = "at temperature 0 all samples are equal, so `num_samples` above 1 is a waste"
        hint = "set `temperature`, for example 0.7, or leave `num_samples` at 1"
        found.append(("unused", message, ("generator", "num_samples"), hint))
    judged = [use for use in instance.get("filters", {}).get("tasks", ()) if "judge" in use]
    if generator.get("repair_prompt") is not None and not judged:
        message = "`repair_prompt` mends what a judge turned down, but no filter has a judge"
        hint = "add the filter `consistency` to `filters.tasks`, or remove `repair_prompt`"
        found.append(("unused", message, ("generator", "repair_prompt"), hint))
    return [
        Diagnostic(code, message, subject.key(*place), hint) for code, message, place, hint in found
    ]
