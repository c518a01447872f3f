"""What a run takes from a hub and this machine does not have yet; whether it can be had."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import hub
from engine.cli import blamed
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, RequestError
from engine.forecast import fit, least
from engine.forecast.training import weights_on_disk
from engine.models._known import ModelFinder, finder_of, hub_cache
from engine.plan import lock
from engine.plan.lock import Reference
from engine.plan.stage import Node

Absent = Mapping[Reference, Node]  # each with the first node that takes it
_WEIGHTS = ("*.safetensors", "*.bin")
_SHOWN = 4


def of_nodes(nodes: Iterable[Node], environ: Mapping[str, str]) -> dict[Reference, Node]:
    """Return what nodes take from a hub and no cache of this machine holds."""
    found: dict[Reference, Node] = {}
    for node in nodes:
        for value in _taken(node):
            for reference in lock.references_in(value):
                if not _is_here(reference, environ):
                    found.setdefault(reference, node)
    return found


def _taken(node: Node) -> Iterable[Mapping[str, Any]]:
    """Return what names something that a node may take from a hub."""
    if node.stage == "collect":
        return [node.params["source"]]
    is_made_here = "model" in node.inputs or node.params.get("weights") == "random"
    return () if is_made_here else least.models_of(node)


def size_gb(absent: Absent, finder: ModelFinder) -> float:
    """Return what the models take that are to be downloaded, as far as they are known."""
    found = (finder.find(item.name, item.revision) for item in absent if item.kind == "model")
    known = [one.architecture for one in found if one is not None and one.architecture is not None]
    return sum(weights_on_disk(model).value for model in known)


def mistakes(planned: Planned, absent: Absent, *, is_offline: bool) -> list[Diagnostic]:
    """Return why what is absent cannot be downloaded: no hub, or a hub that refuses."""
    if not absent:
        return []
    why = "this machine is offline" if is_offline or hub.is_offline() else hub.out_of_reach()
    if why:
        hint = "download it where there is a network and copy the cache, or set HF_ENDPOINT"
        return [Diagnostic("hub-unreachable", f"{why}; not here: {_listed(absent)}", hint=hint)]
    answers = hub.snapshots({reference: reference.revision for reference in absent})
    refused = [
        _refused(planned, reference, absent[reference], answer)
        for reference, answer in answers.items()
        if isinstance(answer, hub.HubError) and answer.code != hub.UNAVAILABLE  # that may pass
    ]
    there = [name for name, answer in answers.items() if not isinstance(answer, hub.HubError)]
    return [*refused, *_unfit(planned, there)]


def _is_here(reference: Reference, environ: Mapping[str, str]) -> bool:
    """Tell whether a cache may hold it: where that is not certain, it counts as held."""
    cache = hub_cache(environ)
    if reference.kind == "model":
        folder = cache / f"models--{reference.name.replace('/', '--')}" / "snapshots"
        return any(any(folder.glob(f"*/{pattern}")) for pattern in _WEIGHTS)
    named = environ.get("HF_DATASETS_CACHE")
    folder = Path(named).expanduser() if named else cache.parent / "datasets"
    wanted = _letters(reference.name)
    return folder.is_dir() and any(_letters(path.name) == wanted for path in folder.iterdir())


def _letters(name: str) -> str:
    """Return what is left of a name in every spelling that `datasets` gives to folders."""
    return re.sub("[^a-z0-9]", "", name.lower())


def _refused(planned: Planned, reference: Reference, node: Node, error: hub.HubError) -> Diagnostic:
    about = ("model", reference.name) if reference.kind == "model" else ("dataset",)
    if error.code == hub.NO_REVISION and reference.kind == "dataset":
        about = ("revision",)
    found = Diagnostic(error.code, str(error), hint=error.hint)
    return blamed.placed(found, node, about, planned)


def _unfit(planned: Planned, there: Iterable[Reference]) -> list[Diagnostic]:
    """Look at the configs of models that nothing was known of before: they are small."""
    from engine.recipe.load import load_experiment

    if not fetch_configs(there, finder_of(planned.folder, os.environ)):
        return []
    try:
        experiment = load_experiment(planned.recipe, planned.overrides)
        fit.check(experiment, finder_of(planned.folder, os.environ))
    except RequestError as error:
        return list(error.diagnostics)
    return []


def fetch_configs(there: Iterable[Reference], finder: ModelFinder) -> bool:
    """Fetch the configs of models that nothing is known of; tell whether any came."""
    models = [item for item in dict.fromkeys(there) if item.kind == "model"]
    unknown = [item for item in models if finder.find(item.name, item.revision) is None]
    came = [hub.fetch_config(item.name, item.revision) for item in unknown]
    return any(came)


def _listed(absent: Absent) -> str:
    return "; ".join(_counted(absent))


def _counted(absent: Absent) -> Iterator[str]:
    """Yield how many models and datasets there are, and the first of their names."""
    for kind in lock.KINDS:
        names = list(dict.fromkeys(item.name for item in absent if item.kind == kind))
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            noun = f"{len(names)} {kind}{'s' * (len(names) > 1)}"
            yield f"{noun} ({', '.join(names[:_SHOWN])}{more})"
