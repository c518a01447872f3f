"""Recipe -> Plan: which stages run, on what, in the order in which data flows.

Read `_compile_arm` top to bottom: it is the pipeline. Arms of a matrix are compiled one after the
other into one plan; nodes with equal keys are the same node, so finished stages are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from engine import plugin
from engine.plan.builder import ArmBuilder, Inputs, Pins, PlanBuilder
from engine.plan.stage import Plan
from engine.plugin import ModelUse, Use
from engine.recipe.model import (
    BaseSpec,
    BenchmarkSpec,
    Experiment,
    GeneratorSpec,
    Recipe,
    TrainSpec,
)
from engine.stages import (
    STAGES,
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
from engine.stages._expected import Expected, expected_of
from engine.stages._filtering import labels

HOLDOUT = "holdout"
_STAGE_BY_NAME = {stage.name: stage for stage in STAGES}


def compile_plan(experiment: Experiment, pins: Pins, name_file: Callable[[str], str] = str) -> Plan:
    """Compile a recipe and its matrix arms into one plan.

    `name_file` turns the file of a recipe line into the name that stands in the plan.
    Raises RequestError, with every diagnostic, when a source is missing or empty.
    """
    builder = PlanBuilder(_STAGE_BY_NAME, pins, name_file)
    arms = {name: _compile_arm(recipe, name, builder) for name, recipe in experiment.arms.items()}
    builder.refuse_mistakes()
    _add_report(experiment, arms, builder)
    return builder.plan(experiment.recipe.name)


def _compile_arm(recipe: Recipe, arm: str, builder: PlanBuilder) -> dict[str, str]:
    """Add the nodes of one arm; return its nodes by their plain id."""
    add = builder.for_arm(arm, recipe.seed, recipe.span)
    bench = {
        name: add(f"collect/{name}", _collect_params(recipe, spec), {}, "benchmarks")
        for name, spec in recipe.benchmark_specs.items()
    }
    pairs, images = _add_pairs(recipe, bench, add)
    tasks = _add_tasks(recipe, pairs, images, bench, add)
    tasks |= _add_repaired(recipe, images, tasks, bench, add)
    rows, row_images = _add_mix(recipe, pairs, images, tasks, add)
    initial = _add_initial(recipe, add)
    adapted = _add_training(recipe, rows, row_images, initial, add)
    for name in dict.fromkeys((*recipe.benchmarks.domain, *recipe.benchmarks.general)):
        if name == HOLDOUT:
            held_out = _add_tasks(recipe, pairs, images, bench, add, row_set=HOLDOUT)
            _add_holdout_scores(recipe, pairs, images, held_out.get("tasks"), initial, adapted, add)
        else:
            _add_scores(recipe, recipe.benchmark_specs[name], bench[name], initial, adapted, add)
    return add.ids


def _collect_params(recipe: Recipe, spec: BenchmarkSpec) -> collect.Params:
    return collect.Params(source=spec.source, expected=_expected(recipe, spec))


def _expected(recipe: Recipe, spec: BenchmarkSpec) -> Expected | None:
    """Return how many items a benchmark must have; a smoke run is flagged and may have less."""
    if recipe.benchmarks.max_items is not None:
        return None
    return expected_of(spec.name, spec.expected_items)


def _add_pairs(
    recipe: Recipe, bench: Mapping[str, str], add: ArmBuilder
) -> tuple[str | None, str | None]:
    """Collect the image-caption pairs and curate them; both None without a source."""
    if recipe.source is None:
        return None, None
    collected = add("collect", collect.Params(source=recipe.source), {}, "source")
    has_holdout = HOLDOUT in (*recipe.benchmarks.domain, *recipe.benchmarks.general)
    params = curate.Params(
        filters=recipe.filters.pairs,
        holdout_share=recipe.benchmarks.holdout.share if has_holdout else 0.0,
        holdout_max_items=recipe.benchmarks.holdout.max_items if has_holdout else 0,
    )
    inputs = {
        "pairs": {"pairs": collected},
        "images": {"images": collected},
        "benchmarks": _compared(recipe.filters.pairs, bench),
    }
    return add("curate", params, inputs, "filters", "pairs"), collected


def _add_tasks(
    recipe: Recipe,
    pairs: str | None,
    images: str | None,
    bench: Mapping[str, str],
    add: ArmBuilder,
    row_set: str = "pairs",
) -> dict[str, str]:
    """Tune the synthesizer if asked, generate tasks and filter them; empty without tasks."""
    if recipe.generator is None or pairs is None or images is None:
        return {}
    if row_set == "pairs" and recipe.mix.parts.synthetic == 0:
        return {}
    suffix = "" if row_set == "pairs" else f"/{row_set}"
    params = generate.Params(
        generator=recipe.generator.use(),
        prompt=recipe.generator.prompt,
        max_new_tokens=recipe.generator.max_new_tokens,
        temperature=recipe.generator.temperature,
        top_p=recipe.generator.top_p,
        answer_temperature=recipe.generator.answer_temperature,
        num_tasks=recipe.generator.num_tasks,
        num_samples=recipe.generator.num_samples,
        task_types=recipe.generator.task_types,
        row_set=row_set,
    )
    inputs = {"pairs": {"pairs": pairs}, "images": {"images": images}}
    writer = _add_synthesizer(recipe, recipe.generator, bench, add)
    if writer is not None:
        inputs["model"] = {"model": writer}
    generated = add(f"generate{suffix}", params, inputs, "generator")
    return {"tasks": _add_filter(recipe, f"filter{suffix}", generated, images, add)}


def _add_filter(
    recipe: Recipe,
    node: str,
    tasks: str,
    images: str,
    add: ArmBuilder,
    earlier: str | None = None,
) -> str:
    inputs = {"tasks": {"tasks": tasks}, "images": {"images": images}}
    if earlier is not None:
        inputs["earlier"] = {"earlier": earlier}
    return add(node, filter.Params(filters=recipe.filters.tasks), inputs, "filters", "tasks")


def _add_repaired(
    recipe: Recipe,
    images: str | None,
    tasks: Mapping[str, str],
    bench: Mapping[str, str],
    add: ArmBuilder,
) -> dict[str, str]:
    """Have the answers that a judge turned down written again, and filter them again."""
    generator = recipe.generator
    if generator is None or generator.repair_prompt is None or images is None or not tasks:
        return {}
    params = repair.Params(
        generator=generator.use(),
        prompt=generator.repair_prompt,
        max_new_tokens=generator.max_new_tokens,
        filters=tuple(labels([use.name for use in recipe.filters.tasks])),
    )
    inputs = {"tasks": {"tasks": tasks["tasks"]}, "images": {"images": images}}
    writer = _add_synthesizer(recipe, generator, bench, add)
    if writer is not None:
        inputs["model"] = {"model": writer}
    mended = add("repair", params, inputs, "generator", "repair_prompt")
    kept = tasks["tasks"]
    return {"repaired": _add_filter(recipe, "filter/repaired", mended, images, add, kept)}


def _add_synthesizer(
    recipe: Recipe, generator: GeneratorSpec, bench: Mapping[str, str], add: ArmBuilder
) -> str | None:
    """Convert and tune the synthesizer, as far as is asked for; None where it is used as it is."""
    ready = _add_converted("generator", generator, add)
    tune = generator.tune
    if tune is None:
        return ready
    place = ("generator", "tune")
    source = collect.Params(source=tune.seed_tasks)
    collected = add("collect/seed_tasks", source, {}, *place, "seed_tasks")
    names = {name for spec in recipe.benchmark_specs.values() for name in spec.seed_tasks}
    selection = seeds.Params(
        exclude_tasks=tuple(sorted(names.union(tune.exclude_tasks))),
        filters=tune.filters,
        held_out_share=tune.held_out_share,
    )
    read = {
        "seed_tasks": {"seed_tasks": collected},
        "images": {"images": collected},
        "benchmarks": _compared(tune.filters, bench),
    }
    selected = add("seeds", selection, read, *place)
    params = synthesizer.Params(
        model=generator.model,
        revision=generator.revision,
        trust_remote_code=generator.trust_remote_code,
        prompt=generator.prompt,
        blank_ratio=tune.blank_ratio,
        train=tune.train,
        training=tune.training,
    )
    inputs = {"seed_tasks": {"seed_tasks": selected}, "images": {"images": collected}}
    if ready is not None:
        inputs["model"] = {"model": ready}
    return add("synthesizer", params, inputs, *place)


def _compared(filters: Iterable[Use], bench: Mapping[str, str]) -> dict[str, str]:
    """Return the benchmarks that filters compare rows with: all or none."""
    return dict(bench) if any(use.name == "decontaminate" for use in filters) else {}


def _add_converted(section: str, spec: BaseSpec | GeneratorSpec, add: ArmBuilder) -> str | None:
    """Write a checkpoint of another layout anew; None where it can be loaded as it is."""
    if spec.vision_tower is None:
        return None
    params = convert.Params(
        model=spec.model,
        revision=spec.revision,
        layout=spec.layout,
        vision_tower=spec.vision_tower,
    )
    return add(f"convert/{section}", params, {}, section)


def _add_mix(
    recipe: Recipe,
    pairs: str | None,
    images: str | None,
    tasks: Mapping[str, str],
    add: ArmBuilder,
) -> tuple[str, dict[str, str]]:
    """Join the parts into training rows; return them and the artifacts that hold their images."""
    inputs: dict[str, dict[str, str]] = {}
    banks: dict[str, str] = {}
    if pairs is not None and images is not None:
        inputs["pairs"], banks["pairs"] = {"pairs": pairs}, images
    inputs |= {port: {port: node} for port, node in tasks.items()}
    if tasks and recipe.mix.paper_code_compat:
        inputs["unparsed"] = {"unparsed": add.ids["generate"]}
    if recipe.mix.replay is not None:
        replay = collect.Params(source=recipe.mix.replay)
        node = add("collect/replay", replay, {}, "mix", "replay")
        inputs["replay"], banks["replay"] = {"replay": node}, node
    params = mix.Params(
        pipeline=recipe.mix.pipeline,
        parts=recipe.mix.parts,
        order=recipe.mix.order,
        answers=recipe.mix.answers,
        joining=recipe.mix.joining,
        tasks_per_pair=recipe.mix.tasks_per_pair,
        paper_code_compat=recipe.mix.paper_code_compat,
        caption_prompt=recipe.mix.caption_prompt,
        combine_prompt=recipe.mix.combine_prompt,
    )
    return add("mix", params, inputs, "mix"), banks


def _add_initial(recipe: Recipe, add: ArmBuilder) -> str | None:
    """Write out a base that cannot be loaded as it is, so that it can be scored as well."""
    if recipe.base.weights != "random":
        return _add_converted("base", recipe.base, add)
    spec = replace(recipe.training, max_steps=0)
    return add("train/initial", _train_params(recipe.base, spec, "train"), {}, "base")


def _add_training(
    recipe: Recipe,
    rows: str,
    banks: Mapping[str, str],
    initial: str | None,
    add: ArmBuilder,
) -> str:
    inputs: dict[str, Mapping[str, str]] = {"rows": {"rows": rows}, "images": dict(banks)}
    if initial is not None:
        inputs["model"] = {"model": initial}
    if recipe.mix.pipeline == "single_stage":
        return add(
            "train", _train_params(recipe.base, recipe.training, "train"), inputs, "training"
        )
    first = _train_params(recipe.base, recipe.training, "captions")
    inputs["model"] = {"model": add("train/captions", first, inputs, "training")}
    second = _train_params(recipe.base, recipe.training, "instructions")
    return add("train", second, inputs, "training")


def _train_params(base: BaseSpec, spec: TrainSpec, row_set: str) -> Any:
    return train.Params(
        model=base.model,
        revision=base.revision,
        trust_remote_code=base.trust_remote_code,
        weights=base.weights,
        method=base.method,
        train=base.train,
        lora=base.lora,
        training=spec,
        row_set=row_set,
    )


def _add_scores(
    recipe: Recipe,
    spec: BenchmarkSpec,
    items: str,
    initial: str | None,
    adapted: str,
    add: ArmBuilder,
) -> None:
    inputs = {"items": {"items": items}, "images": {"images": items}}
    prompt = recipe.benchmarks.prompt or spec.prompt
    answers = _answers_params(recipe, spec.name, prompt, spec.max_new_tokens, "rows")
    scores = _scores_params(
        recipe,
        spec.name,
        spec.metric,
        spec.metric_by_type,
        options=spec.options,
        expected=_expected(recipe, spec),
    )
    _add_answers_and_scores(answers, scores, inputs, initial, adapted, add)


def _add_holdout_scores(
    recipe: Recipe,
    pairs: str | None,
    images: str | None,
    tasks: str | None,
    initial: str | None,
    adapted: str,
    add: ArmBuilder,
) -> None:
    if pairs is None or images is None:
        return
    inputs = {"items": {"items": pairs}, "images": {"images": images}}
    if tasks is not None:
        inputs["tasks"] = {"tasks": tasks}
    params = _answers_params(recipe, HOLDOUT, "bare@1", 64, HOLDOUT)
    metrics = {"caption": "rouge_l", "task": "open"}
    scores = _scores_params(recipe, HOLDOUT, "rouge_l", metrics)
    _add_answers_and_scores(params, scores, inputs, initial, adapted, add)


def _answers_params(
    recipe: Recipe, benchmark: str, prompt: str, max_new_tokens: int, row_set: str
) -> evaluate.AnswersParams:
    base = recipe.base
    return evaluate.AnswersParams(
        model=ModelUse(
            model=base.model,
            revision=base.revision,
            trust_remote_code=base.trust_remote_code,
            backend=base.backend,
        ),
        benchmark=benchmark,
        prompt=prompt,
        caption_prompt=recipe.mix.caption_prompt,
        max_new_tokens=max_new_tokens,
        max_items=recipe.benchmarks.max_items,
        row_set=row_set,
    )


def _scores_params(
    recipe: Recipe,
    name: str,
    metric: str,
    metric_by_type: Mapping[str, str],
    *,
    options: str = "question",
    expected: Expected | None = None,
) -> evaluate.ScoresParams:
    return evaluate.ScoresParams(
        scorer=recipe.benchmarks.scorer,
        scorer_version=plugin.load("scorers", recipe.benchmarks.scorer).version,
        metric=metric,
        metric_by_type=metric_by_type,
        options=options,
        expected=expected,
        benchmark=name,
    )


def _add_answers_and_scores(
    params: evaluate.AnswersParams,
    scores: evaluate.ScoresParams,
    inputs: Inputs,
    initial: str | None,
    adapted: str,
    add: ArmBuilder,
) -> None:
    """Ask both models the same questions, then score the paired answers."""
    name = params.benchmark
    with_initial = inputs if initial is None else {**inputs, "model": {"model": initial}}
    base = add(f"evaluate.answers/base/{name}", params, with_initial, "benchmarks")
    with_adapted = {**inputs, "model": {"model": adapted}}
    changed = add(f"evaluate.answers/adapted/{name}", params, with_adapted, "benchmarks")
    pair = {"base": {"base": base}, "adapted": {"adapted": changed}}
    add(f"evaluate.scores/{name}", scores, pair, "benchmarks")


def _add_report(
    experiment: Experiment, arms: Mapping[str, Mapping[str, str]], builder: PlanBuilder
) -> None:
    planned = tuple({"id": n.id, "stage": n.stage, "key": n.key} for n in builder.nodes)
    artifacts = {f"{arm}/{plain}": ids[plain] for arm, ids in arms.items() for plain in ids}
    params = report.Params(
        recipe=experiment.recipe.name,
        raw=experiment.raw,
        plan=planned,
        arms=tuple(arms),
    )
    add = builder.for_arm("", experiment.recipe.seed, experiment.recipe.span)
    add("report", params, {"artifacts": artifacts}, "name")
