"""Plans in files: `adapt plan -o plan.json` writes one, `adapt run plan.json` executes just that.

A saved plan names its recipe, as seen from its own folder. It is run only while the recipe, the
data, the prompts and the stages still say the same; else it is refused with the fields that moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.diagnostics import Diagnostic, Note, RequestError
from engine.plan import diff, graph
from engine.plan.stage import Node, Plan

_SHOWN = 12  # fields that moved, before the rest is counted


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan from a file, and the request that it answers."""

    path: Path
    plan: Plan
    recipe: Path
    overrides: tuple[str, ...]


def write(path: Path, plan: Plan, recipe: Path, overrides: Sequence[str]) -> None:
    """Write a plan so that it can be run later. Raise RequestError when the file cannot be."""
    seen_from = os.path.relpath(recipe.resolve(), path.parent.resolve())
    made_from = {"recipe": Path(seen_from).as_posix(), "overrides": list(overrides)}
    document = {**graph.to_json(plan), "made_from": made_from}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        reason = (error.strerror or "it cannot be written").lower()
        raise RequestError(Diagnostic("cannot-write", f"cannot write `{path}`: {reason}")) from None


def read(path: Path) -> SavedPlan:
    """Read a saved plan. Raise RequestError when it is none, or was changed by hand."""
    try:
        document = json.loads(path.read_bytes())
        made_from = document["made_from"]
        plan = graph.from_json(document)
        recipe = Path(os.path.normpath(path.parent / made_from["recipe"]))
        return SavedPlan(path, plan, recipe, tuple(made_from["overrides"]))
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise _refused("file-not-found", f"cannot read `{path}`: {reason}", None) from None
    except (ValueError, KeyError, TypeError) as error:
        why = "" if isinstance(error, KeyError | TypeError) else f": {error}"
        hint = "write one with `adapt plan RECIPE -o FILE.json`"
        raise _refused("no-plan", f"`{path}` is no saved plan{why}", hint) from None


def refuse_stale(saved: SavedPlan, now: Plan) -> None:
    """Raise RequestError, naming every field that moved, unless the recipe still gives the plan."""
    moved = list(_moved(saved.plan, now))
    if not moved:
        return
    shown = moved[:_SHOWN]
    if len(moved) > _SHOWN:
        shown.append(f"and {len(moved) - _SHOWN} more")
    message = f"the plan `{saved.path}` is stale: {saved.recipe.name} now asks for something else"
    hint = f"plan again with `adapt plan {saved.recipe} -o {saved.path}`"
    notes = tuple(Note(f"moved: {line}") for line in shown)
    raise RequestError(Diagnostic("stale-plan", message, hint=hint, notes=notes))


def _moved(old: Plan, new: Plan) -> Iterator[str]:
    """Yield what differs between two plans; keys of other nodes are left out, they only follow."""
    before = {node.id: node for node in old.nodes}
    after = {node.id: node for node in new.nodes}
    for name, node in before.items():
        if name not in after:
            yield f"{name}: no longer planned"
        elif node.stage != "report":
            yield from (f"{name}: {change}" for change in _changes(node, after[name]))
    yield from (f"{name}: newly planned" for name in after if name not in before)


def _changes(old: Node, new: Node) -> list[diff.Change]:
    found = diff.changes(_facts(old), _facts(new))
    return [change for change in found if not change.is_input]


def _facts(node: Node) -> Mapping[str, Any]:
    """Return what a node is made of: the neutral fields are in its params, not in its pre-image."""
    return {**node.preimage, "params": node.params}


def _refused(code: str, message: str, hint: str | None) -> RequestError:
    return RequestError(Diagnostic(code, message, hint=hint))
