"""`--frozen`: nothing runs unless every fact that can be known offline is as the lock says."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from engine.cli import downloaded, locked, planning, settings
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, GateError, RequestError
from engine.plan import lock
from engine.plan.lock import Drift, Facts
from engine.plan.stage import Plan

VLLM = "vllm"


def refuse_drift(
    planned: Planned, args: argparse.Namespace, environ: Mapping[str, str], *, reads_models: bool
) -> None:
    """Raise GateError with every fact that moved; RequestError when there is no lock.

    `reads_models` has the models that were downloaded before read whole, once, to compare them.
    """
    held = required(planned.recipe)
    found = drifts(planned, held, now(planned.plan, args, environ))
    if reads_models:
        found += downloaded_drifts(planned, held, environ)
    if found:
        raise GateError(*found)


def required(recipe: Path) -> Facts:
    """Return the facts of a recipe's lock. Raise RequestError when there is none."""
    found = locked.facts(recipe)
    if found is None:
        message = f"there is no lock `{locked.path_of(recipe)}`"
        hint = f"write one with `adapt lock {recipe}`"
        raise RequestError(Diagnostic("no-lock", message, hint=hint))
    return found


def drifts(planned: Planned, held: Facts, now: Facts) -> list[Diagnostic]:
    """Return every fact that can be known offline and is not as the lock says."""
    plan, again = planned.plan, f"`adapt lock {planned.recipe}` accepts it"
    used = lock.references(plan)
    found = [
        drift_diagnostic(planned.recipe, drift, again) for drift in lock.drifts(held, now, used)
    ]
    moved = {item.message.partition(":")[0] for item in found}
    for reference in lock.missing(held, used):
        if reference.fact not in moved:
            message = f"the lock holds no commit of the {reference.kind} `{reference.name}`"
            span = planning.origin_of(plan.node(used[reference]), planned.folder)
            hint = f"`adapt lock {planned.recipe}` asks the hub for it"
            found.append(Diagnostic("lock-incomplete", message, span, hint))
    return found


def downloaded_drifts(
    planned: Planned, held: Facts, environ: Mapping[str, str]
) -> list[Diagnostic]:
    """Return every downloaded file of a model that is not the locked one."""
    hint = "delete the model from the cache of downloads: its files are not those of the hub"
    found = downloaded.drifts(held, environ, planned.digests.digest_file)
    return [drift_diagnostic(planned.recipe, drift, hint) for drift in found]


def downloads_that_moved(planned: Planned, environ: Mapping[str, str]) -> list[Diagnostic]:
    """Return what a run downloaded and the lock does not hold; its results are stored by then."""
    hint = (
        "delete the model from the cache of downloads, and run it again with another --store: "
        "this one holds results of these bytes"
    )
    held = required(planned.recipe)
    found = downloaded.drifts(held, environ, planned.digests.digest_file)
    return [drift_diagnostic(planned.recipe, drift, hint) for drift in found]


def drift_diagnostic(recipe: Path, drift: Drift, hint: str) -> Diagnostic:
    """Return what is said of a fact that moved, at its line of the lock."""
    return Diagnostic("lock-drift", str(drift), locked.span(recipe, drift.fact), hint)


def now(plan: Plan, args: argparse.Namespace, environ: Mapping[str, str]) -> Facts:
    """Return every fact that can be known offline."""
    from engine.cli import installed

    elsewhere = {}
    if lock.uses(plan, VLLM):  # it may live in an environment of its own
        elsewhere[VLLM] = settings.interpreter(VLLM, args, environ)
    return lock.of_plan(plan) | installed.facts(environ, elsewhere)
