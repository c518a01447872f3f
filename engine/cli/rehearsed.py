"""What `adapt rehearse` says: what stood in for what, what would stop a run, what is unchecked."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.cli import planning, tables
from engine.diagnostics import Diagnostic, RequestError
from engine.runtime import outlook
from engine.runtime.store import Store

if TYPE_CHECKING:
    from engine.cli.run import Session
    from engine.models._known import ModelFinder
    from engine.recipe.model import Experiment
    from engine.rehearsal.recipe import Staged

_NO_DATA = "that the data sets can be downloaded, and that their columns are as the recipe says"
_NO_MODELS = (
    "that the models can be downloaded and loaded, and that their chat formats are as catalogued",
    "what the models answer: stand-ins wrote their tasks, labels and answers in the right form",
    "how much time and GPU memory the models take: `adapt plan` forecasts it",
)
_NO_RESULT = "how good anything is: every score is one of noise"


def refuse_what_is_far(
    experiment: Experiment, finder: ModelFinder, args: argparse.Namespace, *, is_offline: bool
) -> None:
    """Raise RequestError for what was asked for and cannot be fetched without a network."""
    if not is_offline:
        return
    found = [*_far_data(experiment)] if args.with_data is not None else []
    found += _far_models(experiment, finder) if args.with_models else []
    if found:
        raise RequestError(*dict.fromkeys(found))


def _far_data(experiment: Experiment) -> Iterator[Diagnostic]:
    recipe = experiment.recipe
    named = {("source",): recipe.source, ("mix", "replay"): recipe.mix.replay}
    if recipe.generator is not None and recipe.generator.tune is not None:
        named["generator", "tune", "seed_tasks"] = recipe.generator.tune.seed_tasks
    for name, spec in recipe.benchmark_specs.items():
        named["benchmarks", name] = spec.source
    for place, use in named.items():
        if use is None or use.name != "hub" or str(use.settings["dataset"])[:1] in "./~":
            continue
        dataset = use.settings["dataset"]
        message = f"`--with-data` reads `{dataset}` of the hub, and this machine is offline"
        yield Diagnostic(
            "hub-offline", message, recipe.span(*place), "leave `--offline` out, or both"
        )


def _far_models(experiment: Experiment, finder: ModelFinder) -> Iterator[Diagnostic]:
    from engine.forecast import fit

    for recipe in (experiment.recipe, *experiment.arms.values()):
        for model in fit.named_models(recipe):
            if finder.is_here(model.name, model.revision):
                continue
            message = f"`--with-models` runs `{model.name}`, whose weights are not on this machine"
            span = recipe.span(*model.place, "model")
            yield Diagnostic("hub-offline", message, span, "download it, or leave `--offline` out")


def warnings_of_a_run(recipe: str, changes: Sequence[str], store: Store) -> list[Diagnostic]:
    """Return what would stop a run of the recipe here though its rehearsal goes well."""
    from engine.cli import outlays, preflight

    try:
        planned = planning.load_plan(recipe, changes, store)
    except RequestError:  # data that is not here, which is told where its rows are made up
        return []
    found = outlays.outlay(planned, outlook.look(planned.plan, store), store)
    needed_gb = found.sums.get("disk_gb", 0.0)
    return [*found.warnings, *preflight.no_room(needed_gb, found.free_gb, store.root)]


def to_json(staged: Staged, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a rehearsal says of itself, `rehearsal` of a result in event.schema.json."""
    made_up = [name for name in staged.sources.values() if name.startswith("made-up")]
    unchecked = list(staged.unchecked)
    unchecked += [_NO_DATA] if made_up else []
    is_small = any(what.startswith("a small ") for what in staged.models.values())
    unchecked += _NO_MODELS if is_small else ()
    return {
        "models": dict(staged.models),
        "rows": dict(staged.sources),
        "warnings": [found.to_json() for found in staged.warnings],
        "unchecked": [*unchecked, _NO_RESULT],
    }


def told(session: Session, recipe: str, code: int) -> str:
    """Return the end of a rehearsal for people."""
    found = session.rehearsal or {}
    lines = _block("models", found["models"]) + _block("rows", found["rows"])
    if found["warnings"]:
        lines += ["", "what a run here would meet"]
        lines += [f"  {_warning(item)}" for item in found["warnings"]]
    lines += ["", "not checked", *(f"  {what}" for what in found["unchecked"]), ""]
    status = session.run.status()
    took = tables.duration(status.changed_at - status.started_at)
    num = len(session.plan.nodes)
    end = f"all {num} nodes came to their end in {took}" if code == 0 else "it did not get through"
    return "\n".join((*lines, f"rehearsal of {recipe}: {end}"))


def _block(title: str, told: dict[str, str]) -> list[str]:
    if not told:
        return []
    shown = tables.table([[f"  {name}", what] for name, what in told.items()])
    return ["", title, shown]


def _warning(found: dict[str, Any]) -> str:
    place = f"{found['file']}:{found['line']}: " if found.get("file") else ""
    hint = f" ({found['hint']})" if found.get("hint") else ""
    return f"{place}{found['message']}{hint}"
